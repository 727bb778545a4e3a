"""Forms: fields set, chosen, ticked, and read back."""

from __future__ import annotations

from execution.browser_worker import fields
from execution.browser_worker.step import Step
from execution.browser_worker.stops import Stopped
from execution.browser_worker.targets import Element, Targets
from skyagent.execution.v1 import browser_pb2 as pb


async def fill(step: Step, action: pb.FillAction) -> None:
    """Sets one field."""
    await _fill_all(step, [pb.FieldValue(target=action.target, value=action.value)])


async def fill_form(step: Step, action: pb.FillFormAction) -> None:
    """Sets the fields in order, then reads every one back: a later field may have changed an earlier one."""
    await _fill_all(step, list(action.fields))


async def select(step: Step, action: pb.SelectAction) -> None:
    """Chooses options by label or value."""
    await _fill_all(step, [pb.FieldValue(target=action.target, value="\n".join(action.values))])


async def check(step: Step, action: pb.CheckAction) -> None:
    """Ticks or unticks."""
    await _fill_all(step, [pb.FieldValue(target=action.target, value="true" if action.checked else "false")])


async def _fill_all(step: Step, wanted: list[pb.FieldValue]) -> None:
    done: list[tuple[Element, pb.FieldValue]] = []
    for each in wanted:
        try:
            element = await Targets(step.tab, step.config, step.clock).find(each.target)
            await fields.set_field(step, element, each.value)
        except Stopped as stop:
            name = each.label or each.target.locator.field
            raise Stopped(stop.status, f"{name}: {stop.message}" if name else stop.message, stop.effect) from stop
        done.append((element, each))
        step.progress(f"filled {each.label or each.target.locator.field or element.ref}")
    readings = await fields.read_all_back(step, done)
    step.result.fields.extend(readings)
    if wrong := fields.surprise(readings, wanted):
        raise Stopped(pb.BROWSER_STATUS_UNEXPECTED_STATE, wrong)
