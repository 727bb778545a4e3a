"""Work in forks, a few at a time. Each leads a session of its own, so that what it started ends with it."""

from __future__ import annotations

import os
import resource
import select
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Generic, TypeVar

T = TypeVar("T")

TIMED_OUT = 124  # as timeout(1) has it
MEMORY = 8 * 1024**3  # for a mutant that never stops collecting
# The tests flush their files often; what is tried here is not the disk.
_SCRATCH = "/dev/shm" if Path("/dev/shm").is_dir() else None


@dataclass(frozen=True, slots=True)
class Job(Generic[T]):
    """What a fork does, with a folder for its files: it returns the exit code. After `seconds` it is ended."""

    name: T
    work: Callable[[Path], int]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Fork(Generic[T]):
    job: Job[T]
    pid: int
    ended: int  # a file descriptor that can be read once it has ended
    deadline: float
    folder: Path


def in_forks(jobs: Iterable[Job[T]], parallel: int) -> Iterator[tuple[T, int]]:
    """The exit code of every job, as they end."""
    waiting, running = iter(jobs), list[_Fork[T]]()
    try:
        while True:
            while len(running) < parallel and (job := next(waiting, None)) is not None:
                running.append(_fork(job))
            if not running:
                return
            patience = max(0.0, min(fork.deadline for fork in running) - monotonic())
            ended = select.select([fork.ended for fork in running], [], [], patience)[0]
            for fork in [fork for fork in running if fork.ended in ended or fork.deadline <= monotonic()]:
                running.remove(fork)
                yield fork.job.name, _end(fork, late=fork.ended not in ended)
    finally:
        for fork in running:
            _end(fork, late=True)


def _fork(job: Job[T]) -> _Fork[T]:
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        raise RuntimeError("a thread was started before a fork: its locks would stay locked in the child for ever")
    folder = Path(tempfile.mkdtemp(prefix="mutant-", dir=_SCRATCH))
    if pid := os.fork():
        return _Fork(job, pid, os.pidfd_open(pid), monotonic() + job.seconds, folder)
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        devnull = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(devnull, stream)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        code = job.work(folder)
    finally:
        os._exit(code)  # whatever happened, what the parent was doing is not gone on with


def _end(fork: _Fork[T], *, late: bool) -> int:
    if late:
        os.kill(fork.pid, signal.SIGKILL)
        select.select([fork.ended], [], [])
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(fork.pid, signal.SIGKILL)
    _, status = os.waitpid(fork.pid, 0)
    os.close(fork.ended)
    shutil.rmtree(fork.folder, ignore_errors=True)
    code = os.waitstatus_to_exitcode(status)
    return TIMED_OUT if late or code == -signal.SIGALRM else code
