"""Reports on files, and a disk that takes none: whoever writes them goes on."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from execution.noop import NoopExecutor
from gateway.inventory import Reported
from gateway.supervisor.board import Board, Part, State, read_mesh
from infra.clock import SystemClock


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", refuse)


@pytest.mark.usefixtures("full_disk")
def test_a_worker_goes_on_when_its_inventory_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "inventory.json"
    assert Reported(NoopExecutor(), path, SystemClock()).inventory() == NoopExecutor().inventory()
    assert not path.exists()


def test_a_mesh_goes_on_when_its_status_cannot_be_written(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    board = Board(tmp_path / "status.json", "http://127.0.0.1:1", (Part("envoy"),), SystemClock())
    request.getfixturevalue("full_disk")
    board.put("envoy", State.READY, pid=7)
    assert board.mesh.ready
    written = read_mesh(tmp_path / "status.json")
    assert written is not None
    assert not written.ready
