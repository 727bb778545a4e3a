"""What runs now: what the supervisor wrote last, held against the processes that there are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.supervisor.board import STATUS_FILE, Mesh, Part, State, read_mesh
from gateway.supervisor.lock import holder
from infra.processes import process_id
from infra.settings import Settings


@dataclass(frozen=True, slots=True)
class Owned:
    """A process that a worker owns, for instance its browser."""

    name: str
    pid: int
    worker: str


def inventory_path(settings: Settings, worker_id: str) -> Path:
    """Where a worker writes what is alive on it."""
    return settings.workers_dir / worker_id / "inventory.json"


def running(settings: Settings) -> Mesh | None:
    """The mesh that runs now; None when its supervisor does not. A part that just died is not called ready."""
    supervisor = holder(settings.up_lock_path)
    mesh = read_mesh(settings.run_dir / STATUS_FILE)
    if supervisor is None or mesh is None or mesh.pid != supervisor.pid:
        return None
    parts = tuple(_as_it_is(part) for part in mesh.parts)
    return replace(mesh, parts=parts, ready=mesh.ready and all(part.state is State.READY for part in parts))


def owned_processes(settings: Settings, mesh: Mesh) -> Iterator[Owned]:
    """What the workers own, as their inventories say, if it is still alive."""
    for part in mesh.parts:
        for process in _inventory(inventory_path(settings, part.name)):
            if process_id(process.pid):
                yield replace(process, worker=part.name)


def _inventory(path: Path) -> list[Owned]:
    try:
        found = json.loads(path.read_text()).get("processes", [])
        return [Owned(str(each["name"]), int(each["pid"]), "") for each in found]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _as_it_is(part: Part) -> Part:
    if part.state is State.READY and process_id(part.pid) is None:
        return replace(part, state=State.RESTARTING, pid=0)
    return part
