"""One action from beginning to end: fit to run, acted, settled, observed, proved; and what is known when it broke."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Final

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import StorageState

from execution.browser_worker import evidence, outcomes
from execution.browser_worker.actions import ACTIONS, DIALOG_PROOF, INDEPENDENT, LOADS, LOOKS
from execution.browser_worker.carrying import told
from execution.browser_worker.step import Step
from execution.browser_worker.stops import BrowserDied, DocumentGone, Refused, Stopped
from infra.errors import SkyError
from infra.log import event_logger
from skyagent.execution.v1 import browser_pb2 as pb
from skyagent.execution.v1.action_pb2 import Outcome
from skyagent.execution.v1.effect_pb2 import EFFECT_CLASS_IDEMPOTENT, EFFECT_NONE, Effect

log = event_logger(__name__)

#: Seconds for looking at the page and keeping evidence, after an action that may have used up its own.
_AFTERWARDS: Final = 10.0
_RELOADED: Final = (
    "the browser was started again and loaded the page anew, so nothing that was typed is there; look at the page first"
)


class Attempt:
    """An action in a session."""

    def __init__(self, step: Step, name: str) -> None:
        self._step = step
        self._name = name

    async def run(self) -> Outcome:
        """Carries it out. Cancelled, it answers with what is known of the effect instead of raising."""
        step = self._step
        limit = step.action.timeout.ToTimedelta().total_seconds() or step.config.default_timeout
        try:
            outcome = await self._perform(limit)
        except asyncio.CancelledError:
            uncancel()
            return outcomes.cancelled(self._effect())
        outcome.browser.exchanges.extend(step.tab.network.exchanges(step.mark))
        try:
            async with asyncio.timeout(_AFTERWARDS):
                await self._while_alive(self._look_back(outcome), dialogs=False)
        except asyncio.CancelledError:
            uncancel()
        except (TimeoutError, BrowserDied, PlaywrightError, DocumentGone, SkyError, OSError) as error:
            self._log("action.not_proved", error)
            outcome.message += f" (evidence is incomplete: {_first_line(error)})"
        return outcome

    async def _perform(self, limit: float) -> Outcome:
        step = self._step
        try:
            self._refuse_when_unfit()
            async with asyncio.timeout(limit):
                await self._while_alive(self._act(), dialogs=self._name not in DIALOG_PROOF)
        except Stopped as stop:
            return self._failed(stop.status, stop.message, stop.effect)
        except BrowserDied:
            message = "the browser died while acting; it is started again for the next action"
            return self._failed(pb.BROWSER_STATUS_CRASHED, message)
        except DocumentGone:
            message = f"the document went away while acting; the tab is now at {step.tab.url}"
            return self._failed(pb.BROWSER_STATUS_NAVIGATED, message)
        except TimeoutError:
            waits = step.tab.network.loading()
            still = f"; the tab still waits for {waits.exchange.method} {waits.exchange.url}" if waits else ""
            return self._failed(pb.BROWSER_STATUS_TIMEOUT, f"{self._name} was not done within {limit:g} s{still}")
        except Refused as refusal:
            return (
                outcomes.refused("INVALID_ACTION", str(refusal))
                if not step.dispatched
                else self._broken("INVALID_ACTION", refusal)
            )
        except SkyError as error:
            return self._broken(error.reason, error)
        except OSError as error:
            return self._broken("STORAGE_FAILED", error)
        except PlaywrightError as error:
            return self._broken("BROWSER_ERROR", error)
        return outcomes.done(step.result, step.message or f"{self._name} at {step.session.tab.url}")

    def _refuse_when_unfit(self) -> None:
        step, name = self._step, self._name
        if step.tab.dialog and name not in DIALOG_PROOF:
            said = f"a {step.tab.dialog.type} is open and must be answered first: {step.tab.dialog.message!r}"
            raise Stopped(pb.BROWSER_STATUS_DIALOG_OPEN, said)
        checks_itself = name in LOADS or bool(step.action.click.expect)
        if step.session.reloaded and step.effect_class > EFFECT_CLASS_IDEMPOTENT and not checks_itself:
            raise Stopped(pb.BROWSER_STATUS_NAVIGATED, _RELOADED)

    async def _act(self) -> None:
        step = self._step
        if self._name not in INDEPENDENT and not step.action.extract.url:
            await step.tab.until_loaded()
        await ACTIONS[self._name](step, step.action)
        if self._name not in LOOKS:
            await step.tab.settle(step.mark)
            step.raise_if_denied()

    async def _while_alive(self, work: Coroutine[None, None, None], *, dialogs: bool) -> None:
        """Runs until done, or until the browser, the page's process or a dialog ends it."""
        step = self._step
        died, crashed = step.session.died, step.tab.crashed
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
            raise BrowserDied("the browser died")
        if working.cancelled():
            raise self._dialog_stop()
        error = working.result()
        # Playwright often hears of a death before we do.
        if isinstance(error, PlaywrightError) and (await _soon(died) or crashed.is_set()):
            raise BrowserDied("the browser died")
        if error:
            raise error

    def _dialog_stop(self) -> Stopped:
        step = self._step
        dialog = step.tab.dialog
        kind, text = (dialog.type, dialog.message) if dialog else ("dialog", "")
        step.result.dialog = text
        # A question stops the page's scripts before they act on the answer; an alert may come after the deed.
        unsent = kind in {"confirm", "prompt", "beforeunload"} and not step.tab.network.sent_unsafe(step.mark)
        message = f"a {kind} opened: {text!r}; answer it with handle_dialog"
        return Stopped(pb.BROWSER_STATUS_DIALOG_OPEN, message, EFFECT_NONE if unsent else None)

    def _failed(
        self, status: pb.BrowserStatus.ValueType, message: str, effect: Effect.ValueType | None = None
    ) -> Outcome:
        step = self._step
        if status == pb.BROWSER_STATUS_POLICY_DENIED and not step.tab.network.sent_unsafe(step.mark):
            effect = EFFECT_NONE
        return outcomes.failed(step.result, status, message, self._effect() if effect is None else effect)

    def _broken(self, reason: str, error: Exception) -> Outcome:
        """Something that is no answer of the page: a blob that is not there, a full disk, a fault of ours."""
        self._log("action.broken", error)
        return outcomes.broken(self._step.result, reason, _first_line(error), self._effect())

    def _effect(self) -> Effect.ValueType:
        return outcomes.effect_of_stop(self._step.effect_class, dispatched=self._step.dispatched)

    async def _look_back(self, outcome: Outcome) -> None:
        """What the page looks like now, the evidence, and the session's state on disk."""
        step = self._step
        step.result.CopyFrom(outcome.browser)
        proves = not step.reads_only or self._name in LOADS
        try:
            await step.session.adopt_popups()
            if proves:
                # First of all: until it is on disk, a login that was just made would not survive a kill.
                await self._tell_session(outcome, await step.session.save())
            await self._observe()
            if not step.session.tab.dialog:
                await step.list_tabs()
        except (PlaywrightError, DocumentGone, Stopped) as error:
            self._log("action.not_observed", error)
        outcome.browser.CopyFrom(step.result)
        outcome.blobs.extend(step.result.files)
        if proves:
            outcome.blobs.extend(await evidence.of_page(step))
        elif step.evidence:
            outcome.blobs.extend([*step.evidence, *await evidence.of_reading(step)])

    async def _tell_session(self, outcome: Outcome, storage: StorageState | None) -> None:
        """Names the session's state when it is another than before, so that a fork can begin with it."""
        step, seal = self._step, self._step.config.seal
        if storage is None or seal is None or not step.session.news(storage):
            return
        try:
            outcome.session.CopyFrom(await told(step.session.key[1], storage, seal, step.blobs))
        except (SkyError, OSError) as error:  # a fork signs in again; the outcome matters more
            self._log("session.not_told", error)

    async def _observe(self) -> None:
        step = self._step
        wanted = pb.ObserveAction()
        wanted.CopyFrom(step.action.observe_after)
        if wanted.scope == pb.OBSERVE_SCOPE_UNSPECIFIED:
            unasked = self._name in LOOKS and not step.action.HasField("observe_after")
            wanted.scope = pb.OBSERVE_SCOPE_NONE if unasked else pb.OBSERVE_SCOPE_DIFF
        if wanted.scope == pb.OBSERVE_SCOPE_NONE or not step.session.tab.answers:
            return
        try:
            await step.observe(wanted)
        except DocumentGone:
            # A document that was already on its way replaced the one being looked at.
            await step.session.tab.settle(step.session.tab.network.mark())
            await step.observe(wanted)

    def _log(self, event: str, error: BaseException) -> None:
        step = self._step
        log.warning(event, action=self._name, run_id=step.session.key[0], why=step.vault.scrub(_first_line(error)))


def uncancel() -> None:
    """Takes back the cancellation of this task: what is asked for is an answer."""
    task = asyncio.current_task()
    while task and task.cancelling():
        task.uncancel()


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


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).split("\n", 1)[0]
