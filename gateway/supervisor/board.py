"""How every part of a running mesh stands, in memory and as a file that `status` reads."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from infra.clock import Clock
from infra.disk import os_failure
from infra.log import event_logger

STATUS_FILE = "status.json"

log = event_logger(__name__)


class State(StrEnum):
    """How a process stands."""

    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    LOOPING = "crash-looping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the mesh. `pid` is 0 while there is none; `since_ms` is when it came into its state."""

    name: str
    state: State = State.STARTING
    pid: int = 0
    restarts: int = 0
    since_ms: int = 0
    port: int | None = None
    log: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Mesh:
    """The whole of it, as the file has it."""

    pid: int
    started_ms: int
    ready: bool
    address: str
    parts: tuple[Part, ...]


_MESH = TypeAdapter(Mesh)


class Board:
    """Told by the keepers, heard by whoever shows or waits."""

    def __init__(self, path: Path, address: str, parts: tuple[Part, ...], clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._parts = {part.name: replace(part, since_ms=clock.now_ms()) for part in parts}
        self._address = address
        self._started_ms = clock.now_ms()
        self._listeners: list[Callable[[Part], None]] = []
        self._all_ready = asyncio.Event()
        self._is_written = True
        self._write()

    @property
    def mesh(self) -> Mesh:
        """As it stands now."""
        parts = tuple(self._parts.values())
        ready = all(part.state is State.READY for part in parts)
        return Mesh(os.getpid(), self._started_ms, ready, self._address, parts)

    def on_change(self, listener: Callable[[Part], None]) -> None:
        """Call it with every part that changes."""
        self._listeners.append(listener)

    def part(self, name: str) -> Part:
        """How a part stands."""
        return self._parts[name]

    def put(self, name: str, state: State, *, pid: int = 0, restarts: int | None = None, detail: str = "") -> None:
        """A part came into another state."""
        before = self._parts[name]
        count = before.restarts if restarts is None else restarts
        part = replace(before, state=state, pid=pid, restarts=count, since_ms=self._clock.now_ms(), detail=detail)
        self._parts[name] = part
        self._write()
        for listener in self._listeners:
            listener(part)
        if self.mesh.ready:
            self._all_ready.set()

    async def until_ready(self) -> None:
        """Returns once every part has been ready at the same time."""
        await self._all_ready.wait()

    def remove(self) -> None:
        """The mesh has ended."""
        self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        draft = self._path.with_suffix(".draft")
        try:
            draft.write_text(json.dumps(asdict(self.mesh), indent=1))
            draft.replace(self._path)
            self._is_written = True
        except OSError as error:  # a full disk must not end the mesh for a report
            if self._is_written:  # said once, not with every change
                log.warning("status.not_written", error=os_failure(error, self._path))
            self._is_written = False


def read_mesh(path: Path) -> Mesh | None:
    """What a supervisor last wrote; it may have been killed since."""
    try:
        return _MESH.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
