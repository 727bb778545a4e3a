"""Child processes that cannot be lost: own group, death with the parent, pidfiles that survive pid reuse. Linux only.

A process is its pid and its start time (field 22 of /proc/PID/stat, proc(5)): a pid alone may be somebody else's.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from infra.clock import Clock
from infra.errors import NotFound, Precondition
from infra.settings import environment

MARKER_VARIABLE: Final = "SKYAGENT_MARKER"
"""Set for a process and so for all its descendants; how what was lost is found again."""
_PROC = Path("/proc")
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process, told apart from a later one with the same pid; `start_time` is in clock ticks since boot."""

    pid: int
    start_time: int


class Child:
    """A process that we started, leader of its own group."""

    def __init__(self, process: asyncio.subprocess.Process, identity: ProcessId, clock: Clock) -> None:
        self._process = process
        self._clock = clock
        self.identity = identity

    @property
    def pid(self) -> int:
        return self.identity.pid

    async def wait(self) -> int:
        """Its exit code; the negative number of the signal that killed it."""
        return await self._process.wait()

    async def stop(self, grace: float) -> int:
        """SIGTERM to the group, SIGKILL after `grace` seconds, until no member is left. Returns the exit code."""
        await end_group(self.identity, self._clock, grace)
        return await self._process.wait()


async def spawn(
    argv: Sequence[str],
    clock: Clock,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    log_path: Path | None = None,
    marker: str | None = None,
) -> Child:
    """Start a program in a session and group of its own; it gets SIGTERM when this process dies, however it dies.

    `env` replaces the environment, `marker` is added to it. Output is appended to `log_path`, else it is ours.
    Call it from the main thread: the kernel ties the death signal to the thread. NotFound: there is no such program.
    """
    program = shutil.which(argv[0], path=(env or environment()).get("PATH"))
    if program is None:
        raise NotFound("NO_PROGRAM", f"{argv[0]!r} is not on the PATH; install it or give its path", program=argv[0])
    variables = {**(environment() if env is None else env), **({MARKER_VARIABLE: marker} if marker else {})}
    output = None if log_path is None else os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = await asyncio.create_subprocess_exec(
            *(_setpriv(), "--pdeathsig", "TERM", "--", program, *argv[1:]),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=variables,
            cwd=cwd,
            start_new_session=True,
        )
    finally:
        if output is not None:
            os.close(output)
    # It is our child: until it is awaited, even a dead one keeps its entry.
    return Child(process, process_id(process.pid) or ProcessId(process.pid, 0), clock)


def process_id(pid: int) -> ProcessId | None:
    """The identity of a running process; None when there is none."""
    found = _stat(pid)
    return None if found is None else ProcessId(pid, found.start_time)


def alive(process: ProcessId) -> bool:
    """Whether that very process still runs; a zombie does not."""
    found = _stat(process.pid)
    return found is not None and found.start_time == process.start_time and found.state != "Z"


def write_pidfile(path: Path, process: ProcessId) -> None:
    """Record a process for whoever comes after us."""
    draft = path.with_suffix(".new")
    draft.write_text(f"{process.pid} {process.start_time}\n")
    draft.replace(path)


def read_pidfile(path: Path) -> ProcessId | None:
    """The recorded process; None when there is no file, or half of one."""
    try:
        pid, start_time = path.read_text().split()
        return ProcessId(int(pid), int(start_time))
    except (FileNotFoundError, ValueError):
        return None


async def end_group(leader: ProcessId, clock: Clock, grace: float) -> None:
    """SIGTERM, after `grace` seconds SIGKILL, to the group that `leader` led, ours or orphaned, until it is empty."""
    if _members(leader):
        _signal(leader, signal.SIGTERM)
    kill_at = clock.monotonic() + grace
    while _members(leader):
        if clock.monotonic() >= kill_at:
            _signal(leader, signal.SIGKILL)
        await clock.sleep(_POLL_S)


def find_marked(marker: str) -> list[ProcessId]:
    """Processes that were started with this marker, or whose command line holds it; never this process."""
    variable = f"{MARKER_VARIABLE}={marker}".encode()
    return [
        process
        for pid in _pids()
        if pid != os.getpid()
        and (variable in _read(pid, "environ").split(b"\0") or marker.encode() in _read(pid, "cmdline"))
        and (process := process_id(pid))
    ]


def _signal(leader: ProcessId, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader.pid, number)


def _members(leader: ProcessId) -> list[int]:
    """The living members of a group. A pid is not given out again while a group bears its number."""
    now = _stat(leader.pid)
    if now is not None and now.start_time != leader.start_time:
        return []
    return [
        pid
        for pid in _pids()
        if (found := _stat(pid)) and found.group == leader.pid and found.state != "Z"
        and found.start_time >= leader.start_time
    ]  # fmt: skip


def _pids() -> Iterable[int]:
    return (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal())


def _read(pid: int, name: str) -> bytes:
    try:
        return (_PROC / str(pid) / name).read_bytes()
    except OSError:  # gone meanwhile, or not ours to read
        return b""


def _setpriv() -> str:
    found = shutil.which("setpriv")
    if found is None:
        raise Precondition("NO_SETPRIV", "setpriv is not on the PATH; install the package util-linux")
    return found


class _Stat(NamedTuple):
    state: str
    group: int
    start_time: int


def _stat(pid: int) -> _Stat | None:
    try:
        # The name, in parentheses, may hold spaces and parentheses itself.
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return _Stat(fields[0], int(fields[2]), int(fields[19]))
