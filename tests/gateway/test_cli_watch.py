"""Questions of a watched run at a real terminal."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from control.core.run import RunFold
from gateway.cli.exits import Exit
from gateway.cli.watch import Answers, Watch
from gateway.client import Services
from infra.clock import SystemClock
from infra.ids import system_ids
from skyagent.run.v1 import approval_service_pb2 as approvals
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import run_service_pb2 as api
from skyagent.run.v1 import state_pb2 as st

PROMPT = "Approve this once? [y/N] "
STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
LIMIT = 5.0


@dataclass(slots=True)
class Asking:
    """The services of a run with open questions: they stay until each has its answer."""

    state: st.RunState
    decided: dict[str, bool] = field(default_factory=dict[str, bool])
    all_decided: asyncio.Event = field(default_factory=asyncio.Event)

    async def WatchRun(self, request: api.WatchRunRequest) -> AsyncGenerator[api.WatchRunResponse]:
        """Nothing new until the questions are answered, then the end."""
        yield api.WatchRunResponse()
        await self.all_decided.wait()
        self.state.phase = ev.RUN_PHASE_SUCCEEDED
        end = api.WatchRunResponse()
        end.end.SetInParent()
        yield end

    async def GetApproval(self, request: approvals.GetApprovalRequest) -> approvals.GetApprovalResponse:
        """How a question stands."""
        answer = approvals.GetApprovalResponse()
        answer.approval.record.CopyFrom(self.record(request.approval_id))
        if request.approval_id in self.decided:
            answer.approval.record.state = ev.APPROVAL_STATE_GRANTED
        return answer

    async def DecideApproval(self, request: approvals.DecideApprovalRequest) -> approvals.DecideApprovalResponse:
        """Takes an answer."""
        self.decide(request.approval_id, granted=request.decision == ev.APPROVAL_STATE_GRANTED)
        return approvals.DecideApprovalResponse()

    def decide(self, approval_id: str, *, granted: bool) -> None:
        """An answer, from here or elsewhere."""
        self.decided[approval_id] = granted
        if len(self.decided) == len(self.state.approvals):
            self.all_decided.set()

    def record(self, approval_id: str) -> st.ApprovalRecord:
        """A question."""
        return next(record for record in self.state.approvals if record.approval_id == approval_id)


@dataclass(slots=True)
class Person:
    """Whoever sits at the other end of the terminal: reads what it shows, types a line."""

    terminal: int
    seen: str = ""

    async def question(self) -> str:
        """The one question that is asked next."""
        while PROMPT not in self.seen:
            self.seen += STYLE.sub("", (await self._shown()).decode(errors="replace"))
        asked, self.seen = self.seen.split(PROMPT, 1)
        return asked.rsplit("A person is asked", 1)[1].splitlines()[0].strip()

    def types(self, line: str) -> None:
        """A line with its Enter."""
        os.write(self.terminal, f"{line}\n".encode())

    async def _shown(self) -> bytes:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self.terminal, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self.terminal)
        return os.read(self.terminal, 65536)


@contextmanager
def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Generator[Person]:
    """This process's input and output are a terminal with a person before it."""
    ours, theirs = pty.openpty()
    with (
        os.fdopen(ours, "rb", buffering=0) as person,
        os.fdopen(theirs, closefd=False) as stdin,
        os.fdopen(theirs, "w") as stdout,
        monkeypatch.context() as patched,
    ):
        patched.setattr(sys, "stdin", stdin)
        patched.setattr(sys, "stdout", stdout)
        yield Person(person.fileno())


def three_questions() -> Asking:
    state = st.RunState(run_id="RUN", phase=ev.RUN_PHASE_WAITING)
    for name in ("first", "second", "third"):
        state.approvals.add(approval_id=name, summary=f"Submit the {name}", state=ev.APPROVAL_STATE_PENDING)
    return Asking(state)


def watch_of(asking: Asking) -> Watch:
    stub = cast("Any", asking)
    clock = SystemClock()
    services = Services(
        missions=stub, runs=stub, approvals=stub, artifacts=stub, policy=stub, schedules=stub, budgets=stub
    )
    return Watch(services, "RUN", clock, system_ids(clock), Answers.PERSON, RunFold(asking.state))


async def test_each_of_three_open_questions_gets_its_own_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    asking = three_questions()
    with at_a_terminal(monkeypatch) as person:
        async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as tasks:
            code = tasks.create_task(watch_of(asking).to_the_end(json_lines=False))
            for name, answer in (("first", "y"), ("second", "n"), ("third", "y")):
                assert await person.question() == f"Submit the {name}"
                person.types(answer)
    assert asking.decided == {"first": True, "second": False, "third": True}
    assert code.result() is Exit.SUCCEEDED


async def test_a_question_answered_elsewhere_meanwhile_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    asking = three_questions()
    with at_a_terminal(monkeypatch) as person:
        async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as tasks:
            tasks.create_task(watch_of(asking).to_the_end(json_lines=False))
            assert await person.question() == "Submit the first"
            asking.decide("second", granted=True)
            person.types("n")
            assert await person.question() == "Submit the third"
            person.types("n")
    assert asking.decided == {"first": False, "second": True, "third": False}
