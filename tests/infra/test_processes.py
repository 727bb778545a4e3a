from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from infra.clock import SystemClock
from infra.errors import NotFound
from infra.processes import (
    Child,
    ProcessId,
    alive,
    end_group,
    find_marked,
    process_id,
    read_pidfile,
    spawn,
    write_pidfile,
)

CLOCK = SystemClock()
STUBBORN = "trap '' TERM; echo ready; while :; do sleep 1; done"
WITH_CHILD = "sleep 1000 & echo $!; wait"


@asynccontextmanager
async def spawned(argv: Sequence[str], log: Path, marker: str | None = None) -> AsyncGenerator[Child]:
    child = await spawn(argv, CLOCK, log_path=log, marker=marker)
    try:
        yield child
    finally:
        await child.stop(0)


async def line_in(log: Path) -> str:
    """The first line of a log, as soon as it is there."""
    async with asyncio.timeout(10):
        while not (lines := [line for line in said(log).splitlines(keepends=True) if line.endswith("\n")]):
            await CLOCK.sleep(0.01)
    return lines[0].strip()


def said(log: Path) -> str:
    return log.read_text()


async def until_gone(process: ProcessId) -> None:
    async with asyncio.timeout(10):
        while alive(process):
            await CLOCK.sleep(0.01)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


async def test_a_child_leads_a_group_of_its_own(log: Path) -> None:
    async with spawned(["sleep", "1000"], log) as child:
        assert os.getpgid(child.pid) == child.pid != os.getpgid(0)


async def test_the_exit_code_of_a_child_is_told(log: Path) -> None:
    async with spawned(["sh", "-c", "exit 7"], log) as child:
        assert await child.wait() == 7


async def test_a_child_that_was_killed_tells_the_signal(log: Path) -> None:
    async with spawned(["sleep", "1000"], log) as child:
        os.kill(child.pid, signal.SIGKILL)
        assert await child.wait() == -signal.SIGKILL


async def test_stopping_a_child_ends_what_it_started_too(log: Path) -> None:
    async with spawned(["sh", "-c", WITH_CHILD], log) as child:
        grandchild = process_id(int(await line_in(log)))
        assert grandchild
        await child.stop(5)
        assert not alive(grandchild)


async def test_a_child_that_ignores_sigterm_is_killed_after_its_grace(log: Path) -> None:
    async with spawned(["sh", "-c", STUBBORN], log) as child:
        await line_in(log)
        assert await child.stop(0.1) == -signal.SIGKILL


async def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(NotFound, match="'no-such-program' is not on the PATH"):
        await spawn(["no-such-program"], CLOCK)


async def test_a_child_has_the_environment_it_is_given_and_no_other(log: Path) -> None:
    async with spawned(["/bin/sh", "-c", "echo $SKYAGENT_MARKER-$HOME"], log, marker="mark"):
        assert await line_in(log) == f"mark-{os.environ.get('HOME', '')}"
    bare = await spawn(["/usr/bin/env"], CLOCK, env={"ONLY": "this"}, log_path=log)
    await bare.wait()
    assert said(log).splitlines()[1:] == ["ONLY=this"]


async def test_children_die_with_a_parent_that_was_killed(log: Path, tmp_path: Path) -> None:
    script = (
        "import asyncio, pathlib\n"
        "from infra.clock import SystemClock\n"
        "from infra.processes import spawn, write_pidfile\n"
        "async def main():\n"
        "    child = await spawn(['sleep', '1000'], SystemClock())\n"
        f"    write_pidfile(pathlib.Path({str(tmp_path / 'pid')!r}), child.identity)\n"
        "    print('ready', flush=True)\n"
        "    await child.wait()\n"
        "asyncio.run(main())\n"
    )
    async with spawned([sys.executable, "-c", script], log) as parent:
        await line_in(log)
        orphan = read_pidfile(tmp_path / "pid")
        assert orphan
        assert alive(orphan)
        os.kill(parent.pid, signal.SIGKILL)
        await until_gone(orphan)


async def test_a_group_whose_leader_died_is_still_ended(log: Path) -> None:
    async with spawned(["sh", "-c", "sleep 1000 & echo $!; exit 0"], log) as child:
        await child.wait()
        orphan = process_id(int(await line_in(log)))
        assert orphan
        assert alive(orphan)
        await end_group(child.identity, CLOCK, 5)
        assert not alive(orphan)


async def test_a_pid_that_now_is_somebody_elses_is_left_alone(log: Path) -> None:
    async with spawned(["sleep", "1000"], log) as child:
        former = ProcessId(child.pid, child.identity.start_time - 1)
        assert not alive(former)
        await end_group(former, CLOCK, 0)
        assert alive(child.identity)


async def test_a_zombie_is_not_alive(log: Path) -> None:
    process = await asyncio.create_subprocess_exec("sh", "-c", "sleep 0 & exec sleep 1000", start_new_session=True)
    leader = process_id(process.pid)
    assert leader
    try:
        async with asyncio.timeout(10):
            while not (zombie := _zombie_child_of(process.pid)):
                await CLOCK.sleep(0.01)
        assert not alive(zombie)
    finally:
        await end_group(leader, CLOCK, 0)
        await process.wait()


def _zombie_child_of(parent: int) -> ProcessId | None:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            fields = (entry / "stat").read_text().rpartition(")")[2].split() if (entry / "stat").exists() else []
            if fields[:2] == ["Z", str(parent)]:
                return process_id(int(entry.name))
    return None


async def test_what_carries_a_marker_is_found_wherever_it_went(log: Path) -> None:
    async with spawned(["sh", "-c", "setsid sleep 1000 & echo $!; wait"], log, marker="sky-test-7f3a") as child:
        escaped = process_id(int(await line_in(log)))
        assert escaped
        found = find_marked("sky-test-7f3a")
        assert {child.identity, escaped} <= set(found)
        await child.stop(5)
        for process in find_marked("sky-test-7f3a"):
            await end_group(process, CLOCK, 5)
        assert not alive(escaped)


async def test_a_marker_is_not_found_in_half_of_another(log: Path) -> None:
    async with spawned(["sleep", "1000"], log, marker="sky-test-1234"):
        assert not find_marked("sky-test-12")


def test_a_pidfile_tells_what_was_written(tmp_path: Path) -> None:
    write_pidfile(tmp_path / "x.pid", ProcessId(12, 345))
    assert read_pidfile(tmp_path / "x.pid") == ProcessId(12, 345)


@pytest.mark.parametrize("content", ["", "12", "12 x", "1 2 3"])
def test_half_a_pidfile_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.pid").write_text(content)
    assert read_pidfile(tmp_path / "x.pid") is None


def test_no_pidfile_is_none(tmp_path: Path) -> None:
    assert read_pidfile(tmp_path / "x.pid") is None
