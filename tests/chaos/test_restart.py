"""Approvals, pauses and policy when everything is killed -9: what was decided stays decided."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import sqlalchemy as sa

from control.journal.schema import run_events
from infra.db import open_database
from infra.digest import digest_message
from infra.status import from_rpc_error
from skyagent.mission.v1 import mission_pb2 as mission
from skyagent.run.v1 import approval_service_pb2 as approvals
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import run_service_pb2 as runs
from skyagent.run.v1 import state_pb2 as st
from tests.chaos.application import Application, application
from tests.chaos.stage import SERVICES, Person, Stage, staged

pytestmark = pytest.mark.timeout(180)

ROWS = "Number,Amount\nP-1,900.00\n"


@dataclass
class Scene:
    """Everything a test of this file needs."""

    app: Application
    stage: Stage
    person: Person

    async def everything(self) -> None:
        """Starts a control plane and a worker."""
        await self.stage.control_plane()
        await self.stage.paper_worker()
        await self.person.is_heard()

    async def payment(self) -> str:
        """A run whose one post needs a yes."""
        spec = mission.MissionSpec(goal="pay")
        spec.limits.approve_above_cents = 50_000
        return await self.stage.mission(spec, ROWS, site=self.app.url, form="/payments/add/")

    async def question(self, run_id: str, number: int = 1) -> st.ApprovalRecord:
        state = await self.person.sees(run_id, lambda state: len(state.approvals) == number)
        return state.approvals[-1]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncGenerator[Scene]:
    async with application() as app, staged(tmp_path) as (stage, person):
        yield Scene(app, stage, person)


def _over(state: st.RunState) -> bool:
    return state.phase in (ev.RUN_PHASE_SUCCEEDED, ev.RUN_PHASE_FAILED)


def _granted(state: st.RunState) -> bool:
    return any(approval.state == ev.APPROVAL_STATE_GRANTED for approval in state.approvals)


async def test_a_question_a_yes_and_a_pause_outlive_kill_9_of_everything(scene: Scene) -> None:
    run_id = await scene.payment()
    await scene.everything()
    asked = await scene.question(run_id)
    await scene.stage.kill_everything()

    await scene.everything()
    kept = (await scene.person.state(run_id)).approvals[0]
    assert (kept.approval_id, kept.state) == (asked.approval_id, ev.APPROVAL_STATE_PENDING)
    await scene.person.runs.PauseRun(runs.PauseRunRequest(run_id=run_id))
    await scene.person.answers(asked)
    await scene.stage.kill_everything()

    await scene.everything()
    state = await scene.person.sees(run_id, lambda state: state.pause_wanted and _granted(state))
    assert state.phase == ev.RUN_PHASE_PAUSED
    assert not scene.app.posts
    await scene.stage.kill_everything()

    await scene.everything()
    await scene.person.runs.ResumeRun(runs.ResumeRunRequest(run_id=run_id))
    state = await scene.person.sees(run_id, _over)
    assert state.phase == ev.RUN_PHASE_SUCCEEDED
    assert [approval.state for approval in state.approvals] == [ev.APPROVAL_STATE_CONSUMED]
    assert scene.app.posts == {"P-1": 1}
    assert await scene.stage.findings(scene.app.posts) == []


async def test_a_yes_to_an_action_with_one_other_argument_is_refused(scene: Scene) -> None:
    run_id = await scene.payment()
    await scene.everything()
    asked = await scene.question(run_id)
    seen = next(node for node in (await scene.person.state(run_id)).nodes if node.node.node_id == asked.step_id)
    other = type(seen.node.step.action)()
    other.CopyFrom(seen.node.step.action)
    other.browser.click.expect[1].value = "900.01"
    assert digest_message(seen.node.step.action) == asked.action_digest
    request = approvals.DecideApprovalRequest(
        approval_id=asked.approval_id, decision=ev.APPROVAL_STATE_GRANTED, action_digest=digest_message(other)
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await scene.person.approvals.DecideApproval(request)
    assert from_rpc_error(refused.value).reason == "APPROVAL_MISMATCH"
    assert not scene.app.posts


async def test_an_argument_that_changes_after_the_yes_makes_it_void_and_nothing_is_posted(scene: Scene) -> None:
    run_id = await scene.payment()
    await scene.everything()
    asked = await scene.question(run_id)
    await scene.person.runs.PauseRun(runs.PauseRunRequest(run_id=run_id))
    await scene.person.answers(asked)
    await scene.person.sees(run_id, _granted)
    await scene.stage.kill_everything()
    await _falsify(scene.stage.settings.journal_path, b"900.00", b"900.01")

    await scene.everything()
    await scene.person.runs.ResumeRun(runs.ResumeRunRequest(run_id=run_id))
    again = await scene.question(run_id, 2)
    state = await scene.person.state(run_id)
    intact = await scene.person.runs.VerifyRun(runs.VerifyRunRequest(run_id=run_id))
    assert again.action_digest != asked.action_digest
    assert state.approvals[0].state == ev.APPROVAL_STATE_GRANTED
    assert not scene.app.posts
    assert not intact.intact


async def _falsify(path: Path, before: bytes, after: bytes) -> None:
    """Changes one argument in every plan of a journal, behind everybody's back."""

    def change(connection: sa.Connection) -> None:
        kind = ev.EventBody.PLAN_EXTENDED_FIELD_NUMBER
        plans = connection.execute(sa.select(run_events).where(run_events.c.kind == kind)).all()
        for row in plans:
            changed = sa.update(run_events).where(run_events.c.run_id == row.run_id, run_events.c.seq == row.seq)
            connection.execute(changed.values(payload=row.payload.replace(before, after)))

    async with open_database(path) as database:
        await database.transact(change)


async def test_while_the_policy_engine_is_stopped_nothing_is_dispatched_and_the_run_says_why(
    scene: Scene, tmp_path: Path
) -> None:
    run_id = await scene.payment()
    engine, address = await scene.stage.policy_engine(tmp_path / "policy")
    without = [name for name in SERVICES if name != "policy-engine"]
    await scene.stage.control_plane(names=without, SKYAGENT_PEERS=json.dumps({"policy-engine": address}))
    await scene.stage.paper_worker()
    asked = await scene.question(run_id)
    before = await scene.person.state(run_id)
    await engine.kill()
    await scene.person.answers(asked)
    blocked = await scene.person.sees(run_id, lambda state: state.blocked_reason == "POLICY_UNAVAILABLE")
    assert "policy engine" in blocked.blocked_detail
    assert blocked.counts.attempts == before.counts.attempts
    assert not scene.app.posts

    await scene.stage.policy_engine_again(tmp_path / "policy", address)
    state = await scene.person.sees(run_id, _over)
    assert state.phase == ev.RUN_PHASE_SUCCEEDED
    assert scene.app.posts == {"P-1": 1}
    assert await scene.stage.findings(scene.app.posts) == []
