"""kill -9: of Chromium, of a page's process, of the worker. What is said of the effect, what survives, what is left."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from execution.browser_worker import BrowserExecutor
from execution.browser_worker.cdp import open_cdp
from infra.processes import ProcessId, alive, find_marked, process_id, write_pidfile
from skyagent.execution.v1 import browser_pb2 as pb
from skyagent.execution.v1.action_pb2 import OUTCOME_STATUS_CANCELLED
from skyagent.execution.v1.effect_pb2 import EFFECT_NONE, EFFECT_UNKNOWN
from tests.execution.browser_worker.hands import ONCE, READ, Hands, executing, located, status
from tests.execution.browser_worker.site import Site, serving

SAVE = pb.ClickAction(target=located(role="button", name="Save"), expect_navigation=True)


@pytest.fixture
async def site() -> AsyncGenerator[Site]:
    async with serving() as running:
        yield running


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncGenerator[BrowserExecutor]:
    async with executing(tmp_path / "browser") as executor:
        yield executor


@pytest.fixture
def hands(browser: BrowserExecutor, site: Site) -> Hands:
    return Hands(browser, site.url)


def kill_chromium(executor: BrowserExecutor) -> None:
    os.kill(executor.inventory().processes[0].pid, signal.SIGKILL)


async def end_chromium(executor: BrowserExecutor) -> None:
    pid = executor.inventory().processes[0].pid
    os.kill(pid, signal.SIGKILL)
    await ended([pid])


def group_of(leader: int) -> list[int]:
    """Every living process of a group."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and os.getpgid(pid := int(entry.name)) == leader and _lives(pid):
                found.append(pid)
        except ProcessLookupError:
            continue
    return found


def _lives(pid: int) -> bool:
    found = process_id(pid)
    return found is not None and alive(found)


async def ended(pids: list[int]) -> None:
    """Returns when every one of these processes has ended."""

    def wait(pid: int) -> None:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        with os.fdopen(descriptor):
            select.select([descriptor], [], [])

    for pid in pids:
        await asyncio.to_thread(wait, pid)


async def log_in(hands: Hands) -> None:
    await hands.go("/login")
    await hands.fill_form({"password": "hunter22"})
    await hands.do(click=pb.ClickAction(target=located(role="button", name="Log in"), expect_navigation=True))


async def test_chromium_killed_while_a_save_is_under_way_leaves_the_effect_unknown(hands: Hands, site: Site) -> None:
    await hands.go("/slow-form")
    await hands.fill_form({"amount": "1"})
    async with asyncio.TaskGroup() as group:
        saving = group.create_task(hands.do(ONCE, click=SAVE))
        await site.held.wait()
        kill_chromium(hands.executor)
    outcome = saving.result()
    assert (status(outcome), outcome.effect, outcome.reason) == ("CRASHED", EFFECT_UNKNOWN, "BROWSER_CRASHED")
    assert len(site.saved) == 1
    assert outcome.browser.exchanges[0].method == "POST"


async def test_chromium_killed_while_an_action_only_reads_had_no_effect(hands: Hands) -> None:
    await hands.go("/form")
    waiting = hands.action(READ, wait_for=pb.WaitForAction(text="Godot"))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(hands.execute(waiting))
        while not hands.executor._sessions.lock(hands.run_id, "default").locked():  # noqa: ASYNC110 # pyright: ignore[reportPrivateUsage]
            await asyncio.sleep(0)
        kill_chromium(hands.executor)
    assert (status(task.result()), task.result().effect) == ("CRASHED", EFFECT_NONE)


async def test_a_login_survives_the_death_of_chromium(hands: Hands) -> None:
    await log_in(hands)
    before = hands.executor.inventory().processes[0].pid
    await end_chromium(hands.executor)
    seen = await hands.look()
    assert (seen.title, seen.http_status) == ("Private", 200)
    assert hands.executor.inventory().processes[0].pid != before


async def test_what_was_typed_before_a_crash_is_not_submitted_unseen(hands: Hands, site: Site) -> None:
    await hands.go("/form")
    await hands.fill_form({"amount": "1"})
    await end_chromium(hands.executor)
    outcome = await hands.do(ONCE, click=SAVE)
    assert (status(outcome), outcome.effect, site.saved) == ("NAVIGATED", EFFECT_NONE, [])
    assert '"Amount:" required' in outcome.browser.observation.text


async def test_references_from_before_a_crash_are_stale(hands: Hands) -> None:
    ref = (await hands.go("/form")).browser.observation.text.split("[f0e")[1].split("]")[0]
    await end_chromium(hands.executor)
    assert status(await hands.do(click=pb.ClickAction(target=pb.Target(ref=f"f0e{ref}")))) == "STALE"


async def test_a_page_whose_process_dies_is_loaded_again(hands: Hands) -> None:
    await log_in(hands)
    waiting = hands.action(READ, wait_for=pb.WaitForAction(text="Godot"))
    tab = hands.executor._sessions.live()[0].tab  # pyright: ignore[reportPrivateUsage]
    async with asyncio.TaskGroup() as group:
        task = group.create_task(hands.execute(waiting))
        group.create_task(crash(hands, tab.crashed))
    assert status(task.result()) == "CRASHED"
    assert (await hands.look()).title == "Private"


async def crash(hands: Hands, crashed: asyncio.Event) -> None:
    session = await open_cdp(hands.page.context, hands.page)
    sending = asyncio.ensure_future(session.send("Page.crash", {}))
    await crashed.wait()
    sending.cancel()


async def test_a_cancelled_save_that_was_sent_has_an_unknown_effect(hands: Hands, site: Site) -> None:
    await hands.go("/slow-form")
    await hands.fill_form({"amount": "1"})
    saving = asyncio.ensure_future(hands.do(ONCE, click=SAVE))
    await site.held.wait()
    saving.cancel()
    outcome = await saving
    assert (outcome.status, outcome.effect) == (OUTCOME_STATUS_CANCELLED, EFFECT_UNKNOWN)


async def test_a_click_that_is_cancelled_before_it_reached_the_page_had_no_effect(hands: Hands) -> None:
    await hands.go("/form")
    clicking = asyncio.ensure_future(hands.click(ONCE, role="button", name="Nowhere"))
    while not hands.executor._sessions.lock(hands.run_id, "default").locked():  # noqa: ASYNC110 # pyright: ignore[reportPrivateUsage]
        await asyncio.sleep(0)
    clicking.cancel()
    outcome = await clicking
    assert (outcome.status, outcome.effect) == (OUTCOME_STATUS_CANCELLED, EFFECT_NONE)


WORKER = """
import asyncio, sys
from pathlib import Path
from tests.execution.browser_worker.hands import Hands, executing
from tests.execution.browser_worker.test_crashes import log_in

async def main():
    async with executing(Path(sys.argv[1])) as executor:
        hands = Hands(executor, sys.argv[2], run_id="RUNKEPT")
        await log_in(hands)
        print(executor.inventory().processes[0].pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_killed_worker_leaves_no_process_and_its_successor_is_still_logged_in(
    tmp_path: Path, site: Site
) -> None:
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, str(tmp_path / "browser"), site.url,
        stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert worker.stdout
    chromium = int(await worker.stdout.readline())
    [profile] = [path for path in (tmp_path / "browser" / "profiles").iterdir() if path.is_dir()]
    # The marker finds crash handlers too, which leave the group.
    processes = [process.pid for process in find_marked(profile.name)]
    assert len(processes) > 3
    worker.kill()
    await worker.wait()
    await ended(processes)
    assert group_of(chromium) == []
    async with executing(tmp_path / "browser") as executor:
        successor = Hands(executor, site.url, run_id="RUNKEPT")
        assert [each.run_id for each in executor.inventory().sessions] == ["RUNKEPT"]
        assert (await successor.look()).title == "Private"
    assert list((tmp_path / "browser" / "profiles").iterdir()) == []


async def test_a_browser_whose_worker_is_gone_is_ended_by_the_next_worker(tmp_path: Path) -> None:
    async with executing(tmp_path / "browser") as orphaned:
        chromium = process_id(orphaned.inventory().processes[0].pid)
        assert chromium
        [owner] = (tmp_path / "browser" / "profiles").glob("*.owner")
        write_pidfile(owner, ProcessId(os.getpid(), 1))
        async with executing(tmp_path / "browser"):
            assert not alive(chromium)


async def test_a_browser_whose_worker_lives_is_left_alone(tmp_path: Path) -> None:
    async with executing(tmp_path / "browser") as first:
        chromium = process_id(first.inventory().processes[0].pid)
        assert chromium
        async with executing(tmp_path / "browser"):
            assert alive(chromium)


async def test_closing_the_worker_leaves_no_process(tmp_path: Path) -> None:
    async with executing(tmp_path / "browser") as executor:
        chromium = executor.inventory().processes[0].pid
        processes = group_of(chromium)
    assert len(processes) > 3
    assert group_of(chromium) == []


async def test_a_missing_chromium_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="SKYAGENT_BROWSER__EXECUTABLE"):
        async with executing(tmp_path / "browser", executable=tmp_path / "nothing"):
            pass


async def test_an_idle_session_is_closed_and_comes_back_when_it_is_used(tmp_path: Path, site: Site) -> None:
    async with executing(tmp_path / "browser", idle_limit=0.0) as executor:
        resting, busy = Hands(executor, site.url), Hands(executor, site.url)
        await log_in(resting)
        await busy.go("/form")
        assert [each.key[0] for each in executor._sessions.live()] == [busy.run_id]  # pyright: ignore[reportPrivateUsage]
        assert (await resting.look()).title == "Private"
