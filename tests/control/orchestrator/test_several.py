"""Several control planes on one PostgreSQL: who owns a run, who goes on with it, and who hears of it."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from control.journal import NodeReplaced
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import event_pb2 as ev
from tests.control.orchestrator.harness import control_plane, noop, worker
from tests.control.orchestrator.several import onlooker, other_process, owner_of, settings_of
from tests.servers.postgres import Postgres


@pytest.fixture
def address(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
async def test_a_run_goes_on_in_the_standby_when_its_owner_is_gone(
    tmp_path: Path, address: str, how: signal.Signals
) -> None:
    here = settings_of("here", address, tmp_path)
    async with onlooker(address, tmp_path) as person, other_process("there", address, tmp_path) as there:
        run_id = await person.start([noop("one"), noop("two"), noop("three")])
        await owner_of(person, run_id, "there")
        async with control_plane(here) as plane, worker(here, plane.runtime.address):
            there.send_signal(how)
            assert (await owner_of(person, run_id, "here")).epoch == 2
            assert (await person.until_ended(run_id)).phase == ev.RUN_PHASE_SUCCEEDED
            if how is signal.SIGSTOP:  # it wakes, and believes to be the owner still
                there.send_signal(signal.SIGCONT)
            assert (await person.journal.verify(run_id)).bad_seq is None


async def test_a_living_owner_keeps_its_runs(tmp_path: Path, address: str) -> None:
    here, there = settings_of("here", address, tmp_path), settings_of("there", address, tmp_path)
    async with onlooker(address, tmp_path) as person, control_plane(there):
        run_id = await person.start([noop("one")])
        await owner_of(person, run_id, "there")
        async with control_plane(here):
            other = await person.start([noop("two")])
            await person.until(other, "owner_changed")
            await asyncio.sleep(2 * here.ownership.ttl)  # there is no event for "nothing happened"
            assert (await person.journal.head(run_id)).epoch == 1


async def test_a_run_is_paused_and_resumed_from_a_process_that_does_not_own_it(tmp_path: Path, address: str) -> None:
    there = settings_of("there", address, tmp_path)
    async with onlooker(address, tmp_path) as person, control_plane(there) as owner:
        run_id = await person.start([noop("one")])
        await person.command(run_id, cmd.Command(pause=cmd.PauseCommand()))
        paused = await person.until_state(run_id, lambda state: state.phase == ev.RUN_PHASE_PAUSED)
        assert paused.counts.attempts == 0
        async with worker(there, owner.runtime.address):
            await person.command(run_id, cmd.Command(resume=cmd.ResumeCommand()))
            assert (await person.until_ended(run_id)).phase == ev.RUN_PHASE_SUCCEEDED


async def test_a_run_outlives_the_loss_of_every_connection(tmp_path: Path, address: str, postgres: Postgres) -> None:
    there = settings_of("there", address, tmp_path)
    name = address.rpartition("/")[2]
    cut = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    async with (
        onlooker(address, tmp_path) as person,
        control_plane(there) as owner,
        worker(there, owner.runtime.address),
    ):
        run_id = await person.start(steps="200")
        for kind in ("step_intended", "step_validated", "step_finished"):
            await person.until(run_id, kind)
            await asyncio.to_thread(postgres.execute, cut)
        ended = await owner.until_ended(run_id, within=40)
        assert (ended.phase, ended.counts.steps_succeeded) == (ev.RUN_PHASE_SUCCEEDED, 200)
        assert (await owner.journal.verify(run_id)).bad_seq is None


async def test_of_two_processes_with_one_node_id_the_former_ends_and_says_why(tmp_path: Path, address: str) -> None:
    there = settings_of("there", address, tmp_path)
    with pytest.raises(NodeReplaced, match="SKYAGENT_NODE_ID"):
        async with control_plane(there), other_process("there", address, tmp_path):
            await asyncio.sleep(30)
