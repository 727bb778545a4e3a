from __future__ import annotations

from pathlib import Path

from skyagent.run.v1 import event_pb2 as ev
from tests.control.orchestrator.harness import control_plane, settings_in, worker


async def test_many_runs_share_a_worker_with_room_for_few(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane, worker(settings, plane.runtime.address):
        run_ids = [await plane.start(steps="5") for _ in range(24)]
        states = [await plane.until_ended(run_id) for run_id in run_ids]
    assert {state.phase for state in states} == {ev.RUN_PHASE_SUCCEEDED}
