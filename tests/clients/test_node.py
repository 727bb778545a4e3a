"""A client that is not ours in anything but the contracts: Node, grpc-js, and messages generated on the spot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.clients.mesh import PROGRAMS, REPOSITORY, installed, mesh, output

STEPS = 100


@pytest.mark.timeout(180)
async def test_a_node_client_lists_gives_pauses_resumes_and_watches(tmp_path: Path) -> None:
    client = await installed(REPOSITORY / "docs" / "clients" / "node", tmp_path / "client")
    async with mesh(tmp_path / "data") as up:
        said = await output(PROGRAMS / "node", "mission.mjs", up.gateway, up.token, cwd=client)
    lines = [json.loads(line) for line in said.splitlines()]
    events = [line for line in lines if "seq" in line]
    kinds = [event["kind"] for event in events]

    assert "data_entry" in [template["name"] for template in lines[0]["templates"]]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert kinds.count("commandApplied") == 2
    assert kinds.count("stepValidated") == STEPS
    assert kinds[-1] == "runFinished"
    assert lines[-1]["phase"] == "SUCCEEDED"
    assert lines[-1]["events"] == len(events)
