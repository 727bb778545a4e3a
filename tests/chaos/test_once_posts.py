"""Posts that nobody can ask about, through a real Chromium, while everything is killed -9 at every named point."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from execution.joints import Joint
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.mission.v1 import mission_pb2 as mission
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import run_service_pb2 as runs
from skyagent.run.v1 import state_pb2 as st
from tests.chaos.application import application
from tests.chaos.stage import Stage, staged

POSTS = 25
INTENT = "intent"
POINTS = (INTENT, *Joint) * 2
UNKNOWABLE = (Joint.BEGUN, Joint.EFFECT)
"""Killed there, the worker's journal says that it had begun and nothing more."""


async def _killed_at(stage: Stage, point: str) -> None:
    """One life of a worker, and if need be of a control plane, that ends at a point of the next post."""
    if point == INTENT:
        dying = await stage.control_plane("--die-at-intent")
        worker = await stage.worker("browser")
        assert await dying.end() == -signal.SIGKILL
        await worker.kill()
        return
    control_plane = await stage.control_plane()
    worker = await stage.worker("browser", f"{point}@once")
    assert await worker.end() == -signal.SIGKILL
    await control_plane.kill()


def _posts(state: st.RunState) -> dict[str, st.NodeRecord]:
    """The post of each record, by the record's key."""
    keys = {node.node.node_id: node.node.group.record_key for node in state.nodes if node.node.group.record_key}
    return {
        keys[node.node.parent_id]: node
        for node in state.nodes
        if node.node.step.action.effect_class == eff.EFFECT_CLASS_ONCE
    }


def _settled(state: st.RunState) -> bool:
    return state.phase in (ev.RUN_PHASE_WAITING, ev.RUN_PHASE_SUCCEEDED, ev.RUN_PHASE_FAILED)


@pytest.mark.timeout(400)
async def test_no_post_is_sent_twice_and_what_cannot_be_known_is_said_and_settled_by_a_person(tmp_path: Path) -> None:
    rows = "Number,Amount\n" + "\n".join(f"P-{number:02},{number}.00" for number in range(1, POSTS + 1))
    async with application() as app, staged(tmp_path) as (stage, person):
        spec = mission.MissionSpec(goal="pay them all")
        run_id = await stage.mission(spec, rows, site=app.url, form="/payments/add/")
        for point in POINTS:
            await _killed_at(stage, point)
        await stage.control_plane()
        await stage.worker("browser")
        state = await person.sees(run_id, _settled)
        posts = _posts(state)

        assert len(posts) == POSTS
        assert max(app.posts.values()) == 1
        uncertain = {key: post for key, post in posts.items() if post.state == ev.NODE_STATE_UNCERTAIN}
        assert len(uncertain) == sum(point in UNKNOWABLE for point in POINTS)
        for post in uncertain.values():
            assert post.attempts[-1].status == act.OUTCOME_STATUS_LOST
            assert "browser-1" in post.reason
            assert "only a person can tell" in post.reason
        certain = posts.keys() - uncertain.keys()
        assert all(posts[key].state == ev.NODE_STATE_SUCCEEDED for key in certain)
        assert all(app.posts[key] == 1 for key in certain)
        assert any(app.posts[key] == 0 for key in uncertain)
        assert any(app.posts[key] == 1 for key in uncertain)

        for key, post in uncertain.items():
            effect = eff.EFFECT_DONE if app.posts[key] else eff.EFFECT_NONE
            await person.runs.ResolveStep(
                runs.ResolveStepRequest(run_id=run_id, step_id=post.node.node_id, effect=effect, note="I looked")
            )
        ended = await person.sees(run_id, lambda state: state.phase in (ev.RUN_PHASE_SUCCEEDED, ev.RUN_PHASE_FAILED))
        assert await stage.findings(app.posts) == []
    assert ended.phase == ev.RUN_PHASE_SUCCEEDED, ended.summary
    assert (ended.reason, ended.summary) == (
        "UNVERIFIED",
        f"{POSTS} records sent, none verified: the application cannot be asked",
    )
    assert len(app.posts) == POSTS
    assert set(app.posts.values()) == {1}
