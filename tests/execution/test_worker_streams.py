"""How a worker's streams begin and end, and what outlives them."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.errors import Conflict, Denied, Internal, Precondition, SkyError, Unauthenticated, Unavailable
from skyagent.execution.v1 import action_pb2
from skyagent.execution.v1 import worker_service_pb2 as pb
from tests.execution.actors import Actor, Immediate, settings, working
from tests.execution.control_plane import ControlPlane, assign, control_plane, step_key, ulid

OK = action_pb2.OUTCOME_STATUS_OK


async def test_reports_on_every_new_stream_until_recorded(plane: ControlPlane, tmp_path: Path) -> None:
    async with working(Immediate(), settings(plane.address, tmp_path)):
        link = await plane.meet()
        key = link.assign(assign())
        first = await link.result()
        link.close()
        for _ in range(2):
            link = await plane.accept()
            hello = await link.hello()
            assert [(held.key, held.state) for held in hello.held] == [(key, pb.HELD_STATE_DONE)]
            assert link.waiting("step_result") == 0
            link.welcome()
            assert await link.result() == first
            link.close(Unavailable("RESTARTING", "back in a moment"))
        link = await plane.meet()
        link.recorded(key)
        link.inspect(key)
        assert (await link.state()).state == pb.HELD_STATE_RELEASED
        link.close()
        assert not (await (await plane.accept()).hello()).held


async def test_the_end_of_a_stream_does_not_stop_what_runs(plane: ControlPlane, tmp_path: Path, actor: Actor) -> None:
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        key = link.assign(assign())
        running = await actor.next()
        link.close()
        link = await plane.accept()
        hello = await link.hello()
        assert [(held.key, held.state) for held in hello.held] == [(key, pb.HELD_STATE_RUNNING)]
        link.welcome()
        actor.let(running)
        assert (await link.result()).outcome.status == OK


async def test_what_waits_its_turn_is_forgotten_with_its_stream_and_can_be_assigned_again(
    plane: ControlPlane, tmp_path: Path, actor: Actor
) -> None:
    async with working(actor, settings(plane.address, tmp_path, max_concurrent_steps=1)):
        link = await plane.meet()
        first, waiting = step_key(1), step_key(2)
        link.assign(assign(first))
        running = await actor.next()
        link.assign(assign(waiting))
        link.inspect(waiting)
        assert (await link.state()).state == pb.HELD_STATE_RUNNING
        link.close()
        link = await plane.accept()
        assert [held.key for held in (await link.hello()).held] == [first]
        link.welcome()
        actor.let(running)
        await link.result()
        link.inspect(waiting)
        assert (await link.state()).state == pb.HELD_STATE_NEVER_BEGUN
        link.assign(assign(waiting))
        actor.let(await actor.next())
        assert (await link.result()).key == waiting
        assert len(actor.executed) == 2


async def test_welcome_names_runs_that_ended_meanwhile(plane: ControlPlane, tmp_path: Path) -> None:
    actor = Immediate()
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        link.assign(assign())
        await link.result()
        link.close()
        link = await plane.accept()
        await link.hello()
        link.welcome(ended_runs=[ulid(1)])
        link.assign(assign())
        assert (await link.result()).outcome.reason == "RUN_ENDED"
        assert await actor.ended_runs.get() == ulid(1)


@pytest.mark.parametrize(
    "failure",
    [
        Conflict("SUPERSEDED", "another stream took over"),
        Denied("NOT_A_WORKER", "this token may not work"),
        Precondition("TOO_OLD", "update the worker"),
    ],
)
async def test_a_worker_that_will_never_be_taken_ends_with_what_it_was_told(
    plane: ControlPlane, tmp_path: Path, failure: SkyError
) -> None:
    async with working(Immediate(), settings(plane.address, tmp_path)) as worker:
        link = await plane.meet()
        link.close(failure)
        with pytest.raises(type(failure), match=failure.message):
            await worker


@pytest.mark.parametrize(
    "failure",
    [
        Unauthenticated("TOKEN_EXPIRED", "the token has expired"),
        Conflict("STALE_OWNER", "another node was faster"),
        Internal("BUG", "something broke"),
    ],
)
async def test_whatever_else_ends_a_stream_is_dialled_again(
    plane: ControlPlane, tmp_path: Path, failure: SkyError
) -> None:
    async with working(Immediate(), settings(plane.address, tmp_path)):
        (await plane.meet()).close(failure)
        link = await plane.meet()
        link.assign(assign())
        assert (await link.result()).outcome.status == OK


async def test_a_token_is_read_anew_for_every_stream(plane: ControlPlane, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    async with working(Immediate(), settings(plane.address, tmp_path, token_file=token)):
        link = await plane.meet()
        token.write_text("new")
        link.close(Unauthenticated("TOKEN_EXPIRED", "the token has expired"))
        assert (await plane.meet()).metadata["authorization"] == "Bearer new"


async def test_dials_again_when_the_control_plane_comes_back(tmp_path: Path) -> None:
    async with control_plane() as plane:
        address = plane.address
    async with working(Immediate(), settings(address, tmp_path)), control_plane(address) as plane:
        link = await plane.meet()
        link.assign(assign())
        assert (await link.result()).outcome.status == OK


async def test_a_run_of_which_only_keys_are_left_is_named_until_it_is_known_to_be_over(
    plane: ControlPlane, tmp_path: Path
) -> None:
    async with working(Immediate(), settings(plane.address, tmp_path)):
        link = await plane.meet()
        key = link.assign(assign())
        await link.result()
        link.recorded(key)
        link.inspect(key)
        await link.state()
        link.close()
        link = await plane.accept()
        hello = await link.hello()
        assert (list(hello.held), list(hello.capabilities.resident_runs)) == ([], [ulid(1)])
        link.welcome(ended_runs=[ulid(1)])
        link.assign(assign())
        assert (await link.result()).outcome.reason == "RUN_ENDED"
        link.close()
        assert not (await (await plane.accept()).hello()).capabilities.resident_runs


async def test_a_frame_of_a_later_protocol_is_passed_over(plane: ControlPlane, tmp_path: Path) -> None:
    async with working(Immediate(), settings(plane.address, tmp_path)):
        link = await plane.meet()
        link.send(pb.ControlResponse())
        link.assign(assign())
        assert (await link.result()).outcome.status == OK
