"""The browser kind of worker: from an assignment to an outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self

from playwright.async_api import Error as PlaywrightError

from execution.browser_worker import evidence, outcomes
from execution.browser_worker.actions import ACTIONS, DIALOG_PROOF, LOADS, LOOKS, STARTS_AFRESH
from execution.browser_worker.chromium import Chromium
from execution.browser_worker.config import BrowserConfig
from execution.browser_worker.hosts import HostList
from execution.browser_worker.secrets import SecretSource, Vault
from execution.browser_worker.sessions import Session, Sessions
from execution.browser_worker.step import Step
from execution.browser_worker.stops import BrowserDied, DocumentGone, Refused, Stopped
from execution.executor import Assignment, BlobSink
from infra.clock import Clock
from infra.errors import SkyError
from infra.ids import Ids
from infra.log import event_logger
from skyagent.execution.v1 import browser_pb2 as pb
from skyagent.execution.v1.action_pb2 import OUTCOME_STATUS_OK, Action, Outcome
from skyagent.execution.v1.effect_pb2 import EFFECT_CLASS_IDEMPOTENT, EFFECT_NONE, Effect
from skyagent.execution.v1.worker_service_pb2 import Inventory

log = event_logger(__name__)

_DEFAULT_SESSION: Final = "default"
#: Time for looking at the page and keeping evidence after an action that used up its own.
_AFTERWARDS: Final = 10.0


class BrowserExecutor:
    """Carries out browser actions. Actions of one session run one after another."""

    kind: Final = "browser"

    def __init__(self, config: BrowserConfig, secrets: SecretSource, clock: Clock, ids: Ids) -> None:
        self._config = config
        self._secrets = secrets
        self._clock = clock
        self._ids = ids
        self._chromium = Chromium(config, clock, ids)
        self._sessions = Sessions(self._chromium, config, clock)
        self._vaults: dict[str, Vault] = {}

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
        key = (assignment.run_id, action.browser.session_id or _DEFAULT_SESSION)
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
                "ACTION_NOT_SUPPORTED", f"this worker does not do {what}; it does {', '.join(self.actions())}"
            )
        if assignment.deadline is not None and self._clock.monotonic() >= assignment.deadline:
            return outcomes.refused("DEADLINE_PASSED", "the deadline had passed before the action could begin")
        session_id = action.browser.session_id or _DEFAULT_SESSION
        try:
            async with self._sessions.lock(assignment.run_id, session_id):
                session = await self._session(assignment, session_id, name)
                step = self._step(session, assignment, action, blobs, progress)
                return await self._carry_out(step, name)
        except Refused as refusal:
            return outcomes.refused("REFUSED", str(refusal))
        except asyncio.CancelledError:
            _uncancel()
            return outcomes.cancelled(EFFECT_NONE)
        except PlaywrightError as error:
            # The browser died between being found and being used.
            return outcomes.failed(pb.BrowserResult(), pb.BROWSER_STATUS_CRASHED, _first_line(error), EFFECT_NONE)
        except (SkyError, DocumentGone) as error:
            log.error("action.failed", action=name, run_id=assignment.run_id, error=error)
            return outcomes.failed(pb.BrowserResult(), pb.BROWSER_STATUS_CRASHED, str(error), EFFECT_NONE)

    async def _session(self, assignment: Assignment, session_id: str, name: str) -> Session:
        async with asyncio.timeout(self._config.launch_timeout * 2):
            return await self._sessions.get(
                assignment.run_id,
                session_id,
                HostList(assignment.allowed_hosts),
                go_back_to_page=name not in STARTS_AFRESH,
            )

    def _vault(self, run_id: str) -> Vault:
        return self._vaults.setdefault(run_id, Vault(self._secrets))

    def _step(
        self, session: Session, assignment: Assignment, action: Action, blobs: BlobSink, progress: Callable[[str], None]
    ) -> Step:
        return Step(
            session, action.browser, action.effect_class, self._config, self._clock, self._ids,
            self._vault(assignment.run_id), blobs, progress,
        )  # fmt: skip

    async def _carry_out(self, step: Step, name: str) -> Outcome:
        """The action, then what the page looks like now, then the evidence."""
        asked = step.action.timeout.ToTimedelta().total_seconds()
        try:
            outcome = await self._perform(step, name, asked or self._config.default_timeout)
        except asyncio.CancelledError:
            _uncancel()
            return outcomes.cancelled(_effect(step))
        with suppress(TimeoutError, BrowserDied, asyncio.CancelledError):
            async with asyncio.timeout(_AFTERWARDS):
                await self._while_alive(step, self._afterwards(step, name, outcome), dialogs=False)
        _uncancel()
        return outcome

    async def _perform(self, step: Step, name: str, limit: float) -> Outcome:
        try:
            self._refuse_when_unfit(step, name)
            async with asyncio.timeout(limit):
                await self._while_alive(step, self._act(step, name), dialogs=name not in DIALOG_PROOF)
        except Stopped as stop:
            return self._failed(step, stop.status, stop.message, stop.effect)
        except BrowserDied:
            return self._failed(
                step,
                pb.BROWSER_STATUS_CRASHED,
                "the browser died while acting; it is started again for the next action",
            )
        except DocumentGone:
            return self._failed(
                step, pb.BROWSER_STATUS_NAVIGATED, f"the document went away while acting; now at {step.tab.url}"
            )
        except TimeoutError:
            return self._failed(step, pb.BROWSER_STATUS_TIMEOUT, f"{name} was not done within {limit:g} s")
        except (PlaywrightError, SkyError) as error:
            log.error("action.failed", action=name, run_id=step.session.key[0], error=error)
            message = error.message.split("\n", 1)[0] if isinstance(error, PlaywrightError) else str(error)
            return self._failed(step, pb.BROWSER_STATUS_CRASHED, message)
        message = step.message or f"{name} at {step.session.tab.url}"
        return outcomes.done(step.result, message)

    def _refuse_when_unfit(self, step: Step, name: str) -> None:
        if step.tab.dialog and name not in DIALOG_PROOF:
            dialog = step.tab.dialog
            raise Stopped(
                pb.BROWSER_STATUS_DIALOG_OPEN, f"a {dialog.type} is open and must be answered first: {dialog.message!r}"
            )
        careful = step.effect_class > EFFECT_CLASS_IDEMPOTENT
        if (
            step.session.reloaded
            and careful
            and name not in LOADS
            and not (name == "click" and step.action.click.expect)
        ):
            raise Stopped(
                pb.BROWSER_STATUS_NAVIGATED,
                "the browser was started again and loaded the page anew, so nothing that was typed is there; look at the page first",
            )

    async def _act(self, step: Step, name: str) -> None:
        await ACTIONS[name](step, step.action)
        if name not in LOOKS:
            await step.tab.settle(step.mark)
            step.raise_if_denied()

    async def _while_alive(self, step: Step, work: Coroutine[None, None, None], *, dialogs: bool) -> None:
        """Runs until done, or until the browser, the page's process or a dialog ends it."""
        died, crashed = self._chromium.died, step.tab.crashed
        async with asyncio.TaskGroup() as group:
            working = group.create_task(_error_of(work))
            ends = [died, crashed, *([step.tab.dialog_opened] if dialogs else [])]
            watching = [group.create_task(_wait(each)) for each in ends]
            try:
                await asyncio.wait({working, *watching}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (working, *watching):
                    task.cancel()
        if died.is_set() or crashed.is_set():
            raise BrowserDied
        if working.cancelled():
            raise self._dialog_stop(step)
        error = working.result()
        # Playwright often hears of a death before we do.
        if isinstance(error, PlaywrightError) and (await _soon(died) or crashed.is_set()):
            raise BrowserDied
        if error:
            raise error

    def _dialog_stop(self, step: Step) -> Stopped:
        dialog = step.tab.dialog
        text = dialog.message if dialog else ""
        step.result.dialog = text
        # A question stops the page's scripts before they act on the answer; an alert may come after the deed.
        asks = dialog is not None and dialog.type != "alert"
        unsent = asks and not step.tab.network.sent_unsafe(step.mark)
        kind = dialog.type if dialog else "dialog"
        return Stopped(
            pb.BROWSER_STATUS_DIALOG_OPEN,
            f"a {kind} opened: {text!r}; answer it with handle_dialog",
            EFFECT_NONE if unsent else None,
        )

    def _failed(
        self, step: Step, status: pb.BrowserStatus.ValueType, message: str, effect: Effect.ValueType | None = None
    ) -> Outcome:
        if status == pb.BROWSER_STATUS_POLICY_DENIED and not step.tab.network.sent_unsafe(step.mark):
            effect = EFFECT_NONE
        return outcomes.failed(step.result, status, message, effect if effect is not None else _effect(step))

    async def _afterwards(self, step: Step, name: str, outcome: Outcome) -> None:
        result = outcome.browser
        result.exchanges.extend(step.tab.network.exchanges(step.mark))
        step.result.CopyFrom(result)
        try:
            await step.session.adopt_popups()
            await self._observe(step, name)
            if not step.session.tab.dialog:
                await step.list_tabs()
        except (PlaywrightError, DocumentGone, Stopped) as error:
            log.warning("action.not_observed", action=name, reason=str(error).split("\n", 1)[0])
        outcome.browser.CopyFrom(step.result)
        acted = not step.reads_only or name in LOADS
        if acted:
            outcome.blobs.extend(await evidence.collect(step))
            await step.session.save()
        elif step.evidence:
            outcome.blobs.extend([*step.evidence, *await evidence.texts(step)])
        outcome.blobs.extend(step.result.files)

    async def _observe(self, step: Step, name: str) -> None:
        wanted = step.action.observe_after
        if not step.action.HasField("observe_after"):
            wanted = pb.ObserveAction(scope=pb.OBSERVE_SCOPE_NONE if name in LOOKS else pb.OBSERVE_SCOPE_DIFF)
        elif wanted.scope == pb.OBSERVE_SCOPE_UNSPECIFIED:
            wanted = pb.ObserveAction()
            wanted.CopyFrom(step.action.observe_after)
            wanted.scope = pb.OBSERVE_SCOPE_DIFF
        if wanted.scope == pb.OBSERVE_SCOPE_NONE or step.session.tab.dialog:
            return
        try:
            await step.observe(wanted)
        except DocumentGone:
            # A document that was already on its way replaced the one being looked at.
            await step.session.tab.settle(step.session.tab.network.mark())
            await step.observe(wanted)


def _effect(step: Step) -> Effect.ValueType:
    return outcomes.effect_of_stop(step.effect_class, dispatched=step.dispatched)


def _moved_on(action: Action, before: tuple[int, int], after: tuple[int, int]) -> bool:
    """Whether an action changed the document although it was not one that is meant to."""
    meant = action.browser.WhichOneof("action") in {*LOADS, "tabs"} or action.browser.click.expect_navigation
    return not meant and before not in (after, (0, 0))


async def _error_of(work: Coroutine[None, None, None]) -> Exception | None:
    """Runs to the end, so that a group of tasks is not torn down by an answer."""
    try:
        await work
    except Exception as error:  # noqa: BLE001 - raised again by whoever asked
        return error
    return None


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


async def _soon(event: asyncio.Event) -> bool:
    try:
        async with asyncio.timeout(0.25):
            return await event.wait()
    except TimeoutError:
        return False


def _uncancel() -> None:
    if task := asyncio.current_task():
        while task.uncancel() > 0:
            pass


def _first_line(error: PlaywrightError) -> str:
    return error.message.split("\n", 1)[0]
