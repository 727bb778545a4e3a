"""Positive controls: with one rule turned off, the same campaign must report that an invariant is violated."""

from __future__ import annotations

import signal
from contextlib import nullcontext
from pathlib import Path

import pytest

from control.core.run import FOLD_VERSION, LOG_BEHIND
from control.journal import Node
from control.orchestrator.ledger import Ledger
from execution.joints import Joint
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.mission.v1 import mission_pb2 as mission
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import run_service_pb2 as runs
from skyagent.run.v1 import state_pb2 as st
from tests.chaos.application import application
from tests.chaos.faults import unfenced_journal
from tests.chaos.invariants import Campaign, Rule, violations
from tests.chaos.stage import Stage, staged
from tests.control.orchestrator.harness import CLOCK, IDS, ControlPlane, control_plane, noop, settings_in
from tests.control.orchestrator.scripted import scripted_worker

pytestmark = pytest.mark.timeout(180)

EVERYTHING_HOLDS = set[Rule]()
LET_GO = {Rule.OUTCOMES, Rule.ENDS}


def _settled(state: st.RunState) -> bool:
    return state.phase in (ev.RUN_PHASE_WAITING, ev.RUN_PHASE_SUCCEEDED, ev.RUN_PHASE_FAILED)


async def _payment(stage: Stage, site: str) -> str:
    spec = mission.MissionSpec(goal="pay it")
    return await stage.mission(spec, "Number,Amount\nP-1,1.00\n", site=site, form="/payments/add/")


@pytest.mark.parametrize(
    ("control_plane", "worker", "violated"),
    [
        ((), (), {Rule.ENDS}),
        (("--careless",), (), {Rule.ONCE}),
        ((), ("--forgetful",), {Rule.ONCE}),
    ],
)
async def test_the_campaign_notices_lost_taken_for_never_happened_and_a_worker_without_a_journal(
    tmp_path: Path, control_plane: tuple[str, ...], worker: tuple[str, ...], violated: set[Rule]
) -> None:
    """A worker dies between the post and its outcome: with every rule on, the run waits for a person."""
    async with application() as app, staged(tmp_path) as (stage, person):
        run_id = await _payment(stage, app.url)
        await stage.control_plane(*control_plane)
        dying = await stage.paper_worker(crash_at=f"{Joint.EFFECT}@once")
        assert await dying.end() == -signal.SIGKILL
        await stage.paper_worker(*worker)
        await person.sees(run_id, _settled)
        found = await stage.findings(app.posts)
    assert {violation.rule for violation in found} == violated, found


@pytest.mark.parametrize(("worker", "violated"), [((), EVERYTHING_HOLDS), (("--unfenced",), {Rule.ONCE})])
async def test_the_campaign_notices_a_worker_that_obeys_an_overtaken_owner(
    tmp_path: Path, worker: tuple[str, ...], violated: set[Rule]
) -> None:
    """An Assign is under way when its owner dies; it arrives after the next owner has withdrawn the attempt."""
    withheld = tmp_path / "withheld"
    async with application() as app, staged(tmp_path) as (stage, person):
        run_id = await _payment(stage, app.url)
        dying = await stage.control_plane("--withhold", str(withheld))
        first = await stage.paper_worker()
        assert await dying.end() == -signal.SIGKILL
        await first.kill()
        await stage.control_plane("--late", str(withheld))
        await person.runs.PauseRun(runs.PauseRunRequest(run_id=run_id))
        await stage.paper_worker(*worker)
        await person.sees(run_id, lambda state: state.phase == ev.RUN_PHASE_PAUSED)
        await person.runs.ResumeRun(runs.ResumeRunRequest(run_id=run_id))
        await person.sees(run_id, _settled)
        found = await stage.findings(app.posts)
    assert not withheld.exists()
    assert {violation.rule for violation in found} == violated, found


@pytest.mark.parametrize(
    ("worker", "violated"), [((), EVERYTHING_HOLDS), (("--trusting",), {Rule.OUTCOMES, Rule.ENDS})]
)
async def test_the_campaign_notices_a_worker_that_lets_go_at_the_transports_ack(
    tmp_path: Path, worker: tuple[str, ...], violated: set[Rule]
) -> None:
    """A control plane dies after a result was acknowledged and before it is durable."""
    async with application() as app, staged(tmp_path) as (stage, person):
        run_id = await _payment(stage, app.url)
        dying = await stage.control_plane("--deaf")
        await stage.paper_worker(*worker)
        assert await dying.end() == -signal.SIGKILL
        await stage.control_plane()
        await person.sees(run_id, lambda state: _settled(state) or state.blocked_reason == LOG_BEHIND)
        found = await stage.findings(app.posts)
    assert {violation.rule for violation in found} == violated, found


async def _another_node_takes_over(plane: ControlPlane) -> None:
    """It says so in the journal and gives the run up again."""
    node = Node("another", IDS.uuid())
    (head,) = await plane.journal.claim(node, fold_version=FOLD_VERSION, limit=1)
    ledger = Ledger(plane.journal, CLOCK, IDS, head)
    await ledger.load()
    owner = ev.OwnerChanged(node_id=node.node_id, incarnation_id=node.incarnation, cause="takeover")
    await ledger.commit((ev.EventBody(owner_changed=owner),))
    await plane.journal.release(head.run_id, head.epoch)


@pytest.mark.parametrize(("fenced", "violated"), [(True, EVERYTHING_HOLDS), (False, {Rule.EPOCHS})])
async def test_the_campaign_notices_a_journal_that_lets_an_overtaken_owner_append(
    tmp_path: Path, *, fenced: bool, violated: set[Rule]
) -> None:
    settings = settings_in(tmp_path)
    campaign = Campaign(settings)
    with nullcontext() if fenced else unfenced_journal():
        async with control_plane(settings) as plane, scripted_worker(settings, plane.runtime.address) as hand:
            run_id = await plane.start([noop("post", eff.EFFECT_CLASS_ONCE)])
            key = (await hand.assigned()).key
            await _another_node_takes_over(plane)
            hand.result(key)
            await plane.until_ended(run_id)
    assert {violation.rule for violation in await violations(campaign)} == violated
