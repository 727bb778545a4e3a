"""The browser kind of worker: from an assignment to an outcome."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Final, Self

from playwright.async_api import Error as PlaywrightError

from execution.browser_worker import outcomes
from execution.browser_worker.actions import ACTIONS, LOADS, STARTS_AFRESH
from execution.browser_worker.attempt import Attempt, uncancel
from execution.browser_worker.carrying import start_of
from execution.browser_worker.chromium import Chromium
from execution.browser_worker.config import BrowserConfig
from execution.browser_worker.hosts import HostList
from execution.browser_worker.secrets import SecretSource, Vault
from execution.browser_worker.sessions import Session, Sessions
from execution.browser_worker.step import Step
from execution.browser_worker.stops import DocumentGone, Refused
from execution.executor import Assignment, BlobSink
from infra.clock import Clock
from infra.errors import SkyError
from infra.ids import Ids
from skyagent.execution.v1 import browser_pb2 as pb
from skyagent.execution.v1.action_pb2 import OUTCOME_STATUS_OK, Action, Outcome
from skyagent.execution.v1.effect_pb2 import EFFECT_NONE
from skyagent.execution.v1.worker_service_pb2 import Inventory

_DEFAULT_SESSION: Final = "default"


class BrowserExecutor:
    """Carries out browser actions. Actions of one session run one after another."""

    def __init__(self, config: BrowserConfig, secrets: SecretSource, clock: Clock, ids: Ids) -> None:
        self._config = config
        self._secrets = secrets
        self._clock = clock
        self._ids = ids
        self._chromium = Chromium(config, clock, ids)
        self._sessions = Sessions(self._chromium, config, clock)
        self._vaults: dict[str, Vault] = {}

    @property
    def kind(self) -> str:
        return "browser"

    def actions(self) -> Sequence[str]:
        return tuple(f"browser.{name}/1" for name in ACTIONS)

    async def __aenter__(self) -> Self:
        self._config.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        await self._chromium.__aenter__()
        # Started now, so that a missing Chromium is said at once and the first action does not wait.
        await self._chromium.browser()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self._sessions.close()
        await self._chromium.__aexit__(kind, error, trace)

    def inventory(self) -> Inventory:
        inventory = Inventory()
        if pid := self._chromium.pid:
            inventory.processes.add(name="chromium", pid=pid, process_group=pid)
        live = {session.key: session for session in self._sessions.live()}
        for key in sorted({*live, *self._sessions.store.sessions()}):
            title = live[key].tab.url if key in live and live[key].tabs else "(on disk)"
            inventory.sessions.add(session_id=key[1], run_id=key[0], kind="browser", title=title)
        return inventory

    async def end_run(self, run_id: str) -> None:
        await self._sessions.end_run(run_id)
        await asyncio.to_thread(shutil.rmtree, self._config.uploads(run_id), ignore_errors=True)
        self._vaults.pop(run_id, None)

    async def execute(self, assignment: Assignment, blobs: BlobSink, progress: Callable[[str], None]) -> Outcome:
        action = assignment.action
        if not action.HasField("batch"):
            return await self._one(assignment, action, blobs, progress)
        ended: list[Outcome] = []
        for index, inner in enumerate(action.batch.actions):
            progress(f"{index + 1} of {len(action.batch.actions)}")
            before = self._place(assignment, inner)
            ended.append(await self._one(assignment, inner, blobs, progress))
            if ended[-1].status != OUTCOME_STATUS_OK:
                break
            if index + 1 < len(action.batch.actions) and _moved_on(inner, before, self._place(assignment, inner)):
                break
        return outcomes.batch(action.batch.actions, ended)

    def _place(self, assignment: Assignment, action: Action) -> tuple[int, int]:
        """Which document of which tab a session shows."""
        key = (assignment.run_id, _session_id(action))
        session = next((each for each in self._sessions.live() if each.key == key), None)
        return (session.active, session.tab.epoch) if session and session.tabs else (0, 0)

    async def _one(
        self, assignment: Assignment, action: Action, blobs: BlobSink, progress: Callable[[str], None]
    ) -> Outcome:
        began = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)
        outcome = await self._judged(assignment, action, blobs, progress)
        outcome.start_time.FromDatetime(began)
        outcome.end_time.FromDatetime(datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC))
        self._vault(assignment.run_id).scrub_message(outcome)
        return outcome

    async def _judged(
        self, assignment: Assignment, action: Action, blobs: BlobSink, progress: Callable[[str], None]
    ) -> Outcome:
        name = action.browser.WhichOneof("action")
        if name is None or name not in ACTIONS:
            what = f"browser.{name}" if name else f"{action.WhichOneof('kind') or 'empty'} actions"
            return outcomes.refused(
                "UNSUPPORTED_ACTION", f"this worker does not do {what}; it does {', '.join(self.actions())}"
            )
        if assignment.deadline is not None and self._clock.monotonic() >= assignment.deadline:
            return outcomes.refused("DEADLINE_PASSED", "the deadline had passed before the action could begin")
        try:
            async with self._sessions.lock(assignment.run_id, _session_id(action)):
                session = await self._session(assignment, action, name, blobs)
                step = Step(
                    session, action.browser, action.effect_class, self._config, self._clock, self._ids,
                    self._vault(assignment.run_id), blobs, progress,
                )  # fmt: skip
                return await Attempt(step, name).run()
        except asyncio.CancelledError:
            uncancel()
            return outcomes.cancelled(EFFECT_NONE)
        except Refused as refusal:
            return outcomes.refused("INVALID_ACTION", str(refusal))
        except SkyError as error:
            return outcomes.broken(pb.BrowserResult(), error.reason, error.message, EFFECT_NONE)
        except (PlaywrightError, DocumentGone, TimeoutError) as error:
            message = f"the browser died before the action began: {error}".split("\n", 1)[0]
            return outcomes.failed(pb.BrowserResult(), pb.BROWSER_STATUS_CRASHED, message, EFFECT_NONE)

    async def _session(self, assignment: Assignment, action: Action, name: str, blobs: BlobSink) -> Session:
        async with asyncio.timeout(self._config.launch_timeout * 2):
            return await self._sessions.get(
                assignment.run_id,
                _session_id(action),
                HostList((*assignment.allowed_hosts, *self._config.hosts)),
                partial(start_of, _session_id(action), assignment.sessions, self._config.seal, blobs),
                go_back_to_page=name not in STARTS_AFRESH,
            )

    def _vault(self, run_id: str) -> Vault:
        return self._vaults.setdefault(run_id, Vault(self._secrets))


def _session_id(action: Action) -> str:
    return action.browser.session_id or _DEFAULT_SESSION


def _moved_on(action: Action, before: tuple[int, int], after: tuple[int, int]) -> bool:
    """Whether an action changed the document although it was not one that is meant to."""
    meant = action.browser.WhichOneof("action") in {*LOADS, "tabs"} or _expects_document(action.browser)
    return not meant and before not in (after, (0, 0))


def _expects_document(action: pb.BrowserAction) -> bool:
    return action.click.expect_navigation or action.press_key.expect_navigation
