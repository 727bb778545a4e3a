"""What tenants may have at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from control.core.fairness import TENANT_LIMIT
from infra.settings import LimitsSettings
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import event_pb2 as ev
from tests.control.orchestrator.harness import ControlPlane, control_plane, noop, settings_in, worker

LIMITED = LimitsSettings(active_runs_per_tenant=2)


async def begun(plane: ControlPlane, run_ids: list[str]) -> list[bool]:
    return [(await plane.journal.head(run_id)).epoch > 0 for run_id in run_ids]


async def blocked(plane: ControlPlane, run_id: str) -> None:
    await plane.until_state(run_id, lambda state: state.blocked_reason == TENANT_LIMIT)


async def test_runs_over_a_tenants_limit_stay_queued_say_why_and_begin_when_others_end(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, limits=LIMITED)
    async with control_plane(settings) as plane:
        runs = [await plane.start([noop(name)]) for name in ("one", "two", "three", "four")]
        for run_id in runs[2:]:
            await blocked(plane, run_id)
        assert await begun(plane, runs) == [True, True, False, False]
        queued = await plane.state(runs[3])
        assert (queued.phase, "2 runs of tenant default" in queued.blocked_detail) == (ev.RUN_PHASE_QUEUED, True)
        async with worker(settings, plane.runtime.address):
            for run_id in runs:
                ended = await plane.until_ended(run_id)
                assert (ended.phase, ended.blocked_reason) == (ev.RUN_PHASE_SUCCEEDED, "")
                assert (await plane.journal.verify(run_id)).bad_seq is None


async def test_a_limit_is_never_exceeded(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, limits=LIMITED)
    most = 0
    async with control_plane(settings) as plane, worker(settings, plane.runtime.address):
        runs = [await plane.start([noop(str(number))]) for number in range(12)]
        ends = asyncio.gather(*(plane.until_ended(run_id) for run_id in runs))
        while not ends.done():
            heads = await plane.journal.heads()
            most = max(most, sum(head.epoch > 0 and not head.terminal for head in heads))
        assert all(state.phase == ev.RUN_PHASE_SUCCEEDED for state in await ends)
    assert most == LIMITED.active_runs_per_tenant


async def test_a_queued_run_can_be_cancelled(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, limits=LIMITED)
    async with control_plane(settings) as plane:
        runs = [await plane.start([noop(name)]) for name in ("one", "two", "three")]
        await blocked(plane, runs[2])
        await plane.command(runs[2], cmd.Command(cancel=cmd.CancelCommand()))
        assert (await plane.until_ended(runs[2])).phase == ev.RUN_PHASE_CANCELLED


async def test_what_was_under_way_goes_on_after_a_restart_whatever_the_limit_is_then(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane:
        runs = [await plane.start([noop(name)]) for name in ("one", "two", "three")]
        for run_id in runs:
            await plane.until(run_id, "owner_changed")
    limited = settings.model_copy(update={"limits": LimitsSettings(active_runs_per_tenant=1)})
    async with control_plane(limited) as plane, worker(limited, plane.runtime.address):
        for run_id in runs:
            assert (await plane.until_ended(run_id)).phase == ev.RUN_PHASE_SUCCEEDED


@pytest.mark.parametrize("weights", [{"default": 0}, {"default": -1}])
def test_a_weight_of_nothing_is_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="tenant_weights"):
        LimitsSettings(tenant_weights=weights)


async def test_a_queued_run_that_cannot_be_read_keeps_no_other_from_going_on(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, limits=LIMITED)
    async with control_plane(settings) as plane, worker(settings, plane.runtime.address):
        runs = [await plane.start([noop(name)]) for name in ("one", "two")]
        damaged, newer = [await plane.start([noop(name)]) for name in ("damaged", "newer")]
        await plane.sql("UPDATE run_events SET payload = x'ff' WHERE run_id = ? AND seq = 1", damaged)
        await plane.sql("UPDATE runs SET fold_version = 99 WHERE run_id = ?", newer)
        for run_id in [*runs, await plane.start([noop("after them")])]:
            assert (await plane.until_ended(run_id)).phase == ev.RUN_PHASE_SUCCEEDED
