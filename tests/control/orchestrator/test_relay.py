"""Runs that are owned by one node and use workers that are dialled into another, with real processes on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from skyagent.run.v1 import event_pb2 as ev
from tests.control.orchestrator.harness import control_plane, worker
from tests.control.orchestrator.several import onlooker, other_process, owner_of, settings_of


@pytest.fixture
def address(new_database: Callable[[], str]) -> str:
    return new_database()


async def test_a_run_uses_a_worker_that_is_dialled_into_another_node(tmp_path: Path, address: str) -> None:
    here = settings_of("here", address, tmp_path)
    async with onlooker(address, tmp_path) as person, other_process("there", address, tmp_path):
        run_id = await person.start(steps="20")
        await owner_of(person, run_id, "there")
        async with control_plane(here) as holder, worker(here, holder.runtime.address):
            state = await person.until_ended(run_id)
        assert (state.phase, state.counts.steps_succeeded) == (ev.RUN_PHASE_SUCCEEDED, 20)
        assert state.node_id == "there"
        assert (await person.journal.verify(run_id)).bad_seq is None
