"""Watching a run: shown as it goes, questions answered at the terminal, the exit code at its end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import Enum

import grpc

from control.core.run import BUDGET_EXHAUSTED, RunFold, terminal
from gateway.cli.asking import show_question, yes_or_no
from gateway.cli.exits import Exit
from gateway.cli.outcome import answers_of, exit_of_run, pending
from gateway.cli.output import console, plain, print_json
from gateway.cli.screen import Screen, screen
from gateway.cli.tree import phase_word
from gateway.client import Services
from gateway.watching import Link, follow, patiently
from infra.clock import Clock
from infra.errors import Internal
from infra.ids import Ids
from skyagent.run.v1 import approval_service_pb2 as approvals
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import run_service_pb2 as api
from skyagent.run.v1 import state_pb2 as st


class Answers(Enum):
    """Who answers questions while we watch."""

    NOBODY = "nobody"
    PERSON = "person"
    YES = "yes"


@dataclass(slots=True)
class Watch:
    """One run being watched."""

    services: Services
    run_id: str
    clock: Clock
    ids: Ids
    answers: Answers
    folded: RunFold = field(default_factory=RunFold)
    asked: dict[str, asyncio.Task[None]] = field(default_factory=dict[str, asyncio.Task[None]])
    one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def to_the_end(self, *, json_lines: bool) -> Exit:
        """Until the run ends, or can only go on by a person whom nobody here speaks for."""
        with screen(json_lines=json_lines) as shown:
            try:
                async with asyncio.TaskGroup() as questions:
                    await self._follow(shown, questions)
                    raise _Ended
            except* _Ended:
                pass
        code = exit_of_run(self.folded.state)
        if code is None:
            raise Internal("WATCH_ENDED_EARLY", f"the watch of {self.run_id} ended while the run goes on; watch again")
        self._conclude(code, json_lines=json_lines)
        return code

    async def _follow(self, shown: Screen, questions: asyncio.TaskGroup) -> None:
        async for item in follow(self.services.runs, self.run_id, self.clock):
            if isinstance(item, Link):
                shown.link(item, self.folded)
            elif item.HasField("event"):
                self.folded.apply(item.event)
                shown.event(item.event, self.folded)
            if not isinstance(item, Link) and await self._stuck(shown, questions):
                return

    async def _stuck(self, shown: Screen, questions: asyncio.TaskGroup) -> bool:
        """Puts new questions to whoever answers them; whether the run waits for somebody who is not here."""
        state = self.folded.state
        if self.answers is not Answers.NOBODY:
            self._put_questions(shown, questions)
            return state.blocked_reason == BUDGET_EXHAUSTED and not pending(state) and await self._is_head()
        return state.phase == ev.RUN_PHASE_WAITING and await self._is_head()

    def _put_questions(self, shown: Screen, questions: asyncio.TaskGroup) -> None:
        waiting = {approval.approval_id: approval for approval in pending(self.folded.state)}
        for approval_id, approval in waiting.items():
            if approval_id not in self.asked:
                self.asked[approval_id] = questions.create_task(self._answer(approval, shown))
        for approval_id, question in self.asked.items():
            if approval_id not in waiting:
                question.cancel()  # answered elsewhere, or too late

    async def _is_head(self) -> bool:
        """Whether what we folded is how the run stands now, not a moment of its past."""
        answer = await patiently(lambda: self.services.runs.GetRun(api.GetRunRequest(run_id=self.run_id)), self.clock)
        return answer.run.seq == self.folded.state.seq

    async def _answer(self, approval: st.ApprovalRecord, shown: Screen) -> None:
        """Questions wait for each other: there is one keyboard, and a `y` must belong to the question that is shown."""
        async with self.one_at_a_time:
            if await self._still_open(approval):
                await self._decide(approval, granted=await self._granted(approval, shown))

    async def _still_open(self, approval: st.ApprovalRecord) -> bool:
        """A question of the past was answered long ago, and one may be answered elsewhere while it stands here."""
        wanted = approvals.GetApprovalRequest(approval_id=approval.approval_id)
        current = await patiently(lambda: self.services.approvals.GetApproval(wanted), self.clock)
        return current.approval.record.state == ev.APPROVAL_STATE_PENDING

    async def _granted(self, approval: st.ApprovalRecord, shown: Screen) -> bool:
        if self.answers is Answers.YES:
            return True
        with shown.quiet(self.folded):
            show_question(console, approval)
            return await yes_or_no(console, "Approve this once?")

    async def _decide(self, approval: st.ApprovalRecord, *, granted: bool) -> None:
        decision = ev.APPROVAL_STATE_GRANTED if granted else ev.APPROVAL_STATE_DENIED
        request = approvals.DecideApprovalRequest(
            approval_id=approval.approval_id,
            decision=decision,
            action_digest=approval.action_digest,
            request_id=self.ids.uuid(),
            note="answered at the terminal" if self.answers is Answers.PERSON else "answered by --yes",
        )
        try:
            await patiently(lambda: self.services.approvals.DecideApproval(request), self.clock)
        except grpc.aio.AioRpcError as error:
            if error.code() not in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ABORTED):
                raise
            console.print(plain(f"answered already, or too late: {error.details()}", "yellow"))

    def _conclude(self, code: Exit, *, json_lines: bool) -> None:
        state = self.folded.state
        if json_lines:
            print_json(
                {
                    "end": {
                        "runId": self.run_id,
                        "phase": ev.RunPhase.Name(state.phase),
                        "summary": state.summary,
                        "reason": state.reason,
                        "exitCode": int(code),
                        "answers": answers_of(state),
                    }
                }
            )
            return
        if state.artifacts:
            names = ", ".join(artifact.name for artifact in state.artifacts)
            console.print(plain(f"  files: {names}; `skyagent artifacts ls --run {self.run_id}`", "dim"))
        if code is Exit.WAITS_FOR_PERSON or (code is Exit.BUDGET and not terminal(state.phase)):
            waits = " or ".join(f"`{command}`" for command in answers_of(state)) or state.blocked_detail
            console.print(f"{phase_word(state.phase)}: {waits} answers, then "
                          f"`skyagent runs watch {self.run_id}` goes on watching")  # fmt: skip


class _Ended(Exception):
    """The stream ended; questions that are still open are taken back."""
