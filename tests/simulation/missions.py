"""What the runs of a schedule are to do: records that are entered, in every effect class, some after a person's yes."""

from __future__ import annotations

from random import Random

from control.core.run import FOLD_VERSION
from control.journal import EventDraft, NewRun
from infra.ids import Ids
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import browser_pb2 as br
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.mission.v1 import mission_pb2 as mission
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan
from tests.simulation.world import ASK

AT_MOST_ONCE = "at most once "
"""Begins the name of what must not happen twice."""
_CLASSES = (
    eff.EFFECT_CLASS_ONCE,
    eff.EFFECT_CLASS_ONCE,
    eff.EFFECT_CLASS_PROBEABLE,
    eff.EFFECT_CLASS_PROBEABLE,
    eff.EFFECT_CLASS_IDEMPOTENT,
)


def new_run(chance: Random, ids: Ids, number: int) -> NewRun:
    """A run with its whole plan."""
    run_id, nodes = ids.ulid(), list[plan.PlanNode]()
    top = plan.PlanNode(
        node_id=ids.ulid(), title="records", group=plan.Group(on_failure=plan.ON_FAILURE_CONTINUE, phase="records")
    )
    nodes.append(top)
    for record in range(chance.randint(1, 3)):
        nodes += _record(chance, ids, top.node_id, f"{number}.{record}")
    spec = mission.MissionSpec(goal="try everything", template="self_test", allowed_hosts=["app"])
    spec.limits.approval_ttl.FromSeconds(60)
    created = ev.RunCreated(mission_id=ids.ulid(), tenant="default", spec=spec, fold_version=FOLD_VERSION)
    bodies = (ev.EventBody(run_created=created), ev.EventBody(plan_extended=ev.PlanExtended(nodes=nodes)))
    events = tuple(EventDraft.of(body) for body in bodies)
    return NewRun(run_id, created.mission_id, "default", FOLD_VERSION, events, append_id=ids.ulid())


def _record(chance: Random, ids: Ids, parent: str, name: str) -> list[plan.PlanNode]:
    """As the template data_entry plans one: open, save, and ask the application where it can be asked."""
    effect = chance.choice(_CLASSES)
    key = name if effect == eff.EFFECT_CLASS_IDEMPOTENT else AT_MOST_ONCE + name
    options = plan.Group(on_failure=plan.ON_FAILURE_CONTINUE, restart_from_first=True, record_key=key)
    group = plan.PlanNode(node_id=ids.ulid(), parent_id=parent, title=key, group=options)
    opened = br.BrowserAction(session_id="main", navigate=br.NavigateAction(url=f"http://app/{name}"))
    steps = [_step(ids, group.node_id, "open", act.Action(effect_class=eff.EFFECT_CLASS_READ, browser=opened))]
    target = br.Target(locator=br.Locator(role="button", name="Save"))
    click = br.ClickAction(target=target, expect=[br.FieldValue(target=target, value=key, label="Number")])
    if chance.random() < 0.3:
        click.expect.add(target=target, value="yes", label=ASK)
    saved = act.Action(effect_class=effect, browser=br.BrowserAction(session_id="main", click=click))
    save = _step(ids, group.node_id, "save", saved)
    if effect == eff.EFFECT_CLASS_PROBEABLE:
        save.step.postconditions.add(listed=plan.Listed(url=f"http://app/list?q={key}", key=key, count=1))
        save.step.settle.FromSeconds(2)
    return [group, *steps, save]


def _step(ids: Ids, parent: str, title: str, action: act.Action) -> plan.PlanNode:
    return plan.PlanNode(node_id=ids.ulid(), parent_id=parent, title=title, step=plan.Step(action=action))
