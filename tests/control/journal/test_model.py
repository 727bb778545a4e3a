"""The journal beside a model made of dictionaries: whatever is done in whatever order, both say the same."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from control.journal import (
    Append,
    Appended,
    ApprovalDecision,
    ApprovalStatus,
    ApprovalUse,
    Command,
    EventDraft,
    NewApproval,
    Node,
    Projection,
)
from infra.errors import SkyError
from tests.control.journal.world import TENANT, World, opened

T = TypeVar("T")

PENDING, GRANTED, CONSUMED = ApprovalStatus.PENDING, ApprovalStatus.GRANTED, ApprovalStatus.CONSUMED
TTL_MS = 10_000


@dataclass
class Question:
    digest: str
    expires_ms: int
    status: ApprovalStatus = PENDING


@dataclass
class Run:
    """What the journal should know of a run."""

    events: list[tuple[int, bytes, int]]
    epoch: int = 0
    owner: Node | None = None
    control_gen: int = 0
    terminal: bool = False
    pending: list[str] = field(default_factory=list[str])
    questions: dict[str, Question] = field(default_factory=dict[str, Question])

    def objection(self, append: Append) -> str | None:
        """Why an append must be refused, by the order of the protocol."""
        if append.epoch != self.epoch:
            return "STALE_OWNER"
        if append.control_gen not in (None, self.control_gen):
            return "CONTROL_MOVED"
        if append.expect_seq != len(self.events):
            return "STALE_HEAD"
        if append.consume is not None:
            question = self.questions.get(append.consume.approval_id)
            if question is None or question.status is not GRANTED or question.digest != append.consume.action_digest:
                return "APPROVAL_NOT_USABLE"
        if any(cmd_id not in self.pending for cmd_id in append.applied_commands):
            return "COMMAND_NOT_PENDING"
        return None

    def take(self, append: Append) -> None:
        self.events += [(draft.kind, draft.payload, append.epoch) for draft in append.events]
        self.pending = [cmd_id for cmd_id in self.pending if cmd_id not in append.applied_commands]
        if append.consume is not None:
            self.questions[append.consume.approval_id].status = CONSUMED
        for new in append.new_approvals:
            self.questions[new.approval_id] = Question(new.action_digest, new.expires_ms)
        if append.projection is not None:
            if append.projection.terminal and not self.terminal:
                self.end_questions()
            self.terminal = append.projection.terminal

    def end_questions(self) -> None:
        """A run that is over asks nobody any more."""
        for question in self.questions.values():
            if question.status is PENDING:
                question.status = ApprovalStatus.EXPIRED


payloads = st.binary(max_size=30)
one_of_three = st.sampled_from((0, 0, 0, -1, 1))


class JournalMachine(RuleBasedStateMachine):
    """Runs the real journal on a real database; every rule compares its answer with the model's."""

    @staticmethod
    def place(folder: Path) -> Path | str:
        return folder / "journal.db"

    runs = Bundle("runs")
    appends = Bundle("appends")
    commands = Bundle("commands")
    questions = Bundle("questions")

    @initialize()
    def open(self) -> None:
        self.runner = asyncio.Runner()
        self.folder = Path(mkdtemp())
        self.stack = AsyncExitStack()
        place = self.place(self.folder)
        self.world: World = self.run(self.stack.enter_async_context(opened(place, synchronous="NORMAL")))
        self.model: dict[str, Run] = {}
        self.done: dict[str, Appended] = {}
        self.nodes = [Node("node-1", self.world.ids.uuid()), Node("node-2", self.world.ids.uuid())]

    def run(self, doing: Awaitable[T]) -> T:
        async def wait() -> T:
            return await doing

        return self.runner.run(wait())

    def said(self, doing: Awaitable[T]) -> T | str:
        """The result, or the reason of the refusal."""
        try:
            return self.run(doing)
        except SkyError as refused:
            return refused.reason

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            try:
                for run_id in self.model:
                    assert self.run(self.world.journal.verify(run_id)).bad_seq is None
            finally:
                self.run(self.stack.aclose())
                self.runner.close()
                rmtree(self.folder)

    @rule(target=runs, payload=payloads)
    def create(self, payload: bytes) -> str:
        new = replace(self.world.new_run(), events=(EventDraft(1, payload),))
        self.run(self.world.journal.create_run(new))
        self.run(self.world.journal.create_run(new))
        self.model[new.run_id] = Run([(1, payload, 0)])
        return new.run_id

    @rule(node=st.integers(0, 1), limit=st.integers(1, 3))
    def claim(self, node: int, limit: int) -> None:
        owner = self.nodes[node]
        free = [i for i in sorted(self.model) if not self.model[i].terminal and self.model[i].owner != owner][:limit]
        claimed = self.run(self.world.journal.claim(owner, fold_version=1, limit=limit))
        for run_id in free:
            self.model[run_id].owner = owner
            self.model[run_id].epoch += 1
        assert [(head.run_id, head.epoch) for head in claimed] == [(i, self.model[i].epoch) for i in free]

    @rule(run_id=runs, epoch=one_of_three)
    def release(self, run_id: str, epoch: int) -> None:
        run = self.model[run_id]
        named = max(0, run.epoch + epoch)
        self.run(self.world.journal.release(run_id, named))
        if named == run.epoch:
            run.owner = None

    @rule(
        target=appends,
        run_id=runs,
        epoch=one_of_three,
        head=one_of_three,
        control=st.sampled_from((None, None, 0, -1)),
        drafts=st.lists(st.builds(EventDraft, st.integers(1, 25), payloads), min_size=1, max_size=3),
        asks=st.booleans(),
        applies=st.integers(0, 2),
        ends=st.sampled_from((None, None, None, False, True)),
    )
    def append(
        self,
        run_id: str,
        epoch: int,
        head: int,
        control: int | None,
        drafts: list[EventDraft],
        asks: bool,  # noqa: FBT001 (drawn by hypothesis)
        applies: int,
        ends: bool | None,  # noqa: FBT001
    ) -> Append:
        run, world = self.model[run_id], self.world
        expires = world.clock.now_ms() + TTL_MS
        question = NewApproval(world.ids.ulid(), world.ids.ulid(), "b3:right", expires)
        append = Append(
            run_id,
            max(0, run.epoch + epoch),
            len(run.events) + head,
            tuple(drafts),
            world.ids.ulid(),
            control_gen=None if control is None else max(0, run.control_gen + control),
            applied_commands=tuple(run.pending[:applies]),
            new_approvals=(question,) if asks else (),
            projection=None if ends is None else Projection("ENDED" if ends else "RUNNING", b"", terminal=ends),
        )
        self.write(append)
        return append

    def write(self, append: Append) -> None:
        run = self.model[append.run_id]
        expected = run.objection(append)
        answer = self.said(self.world.journal.append(append))
        if expected is not None:
            assert answer == expected
            return
        run.take(append)
        assert isinstance(answer, Appended)
        assert answer.seq == len(run.events)
        self.done[append.append_id] = answer

    @rule(append=appends)
    def append_again(self, append: Append) -> None:
        """Also long after: who appended or claimed or commanded since makes no difference."""
        if append.append_id in self.done:
            assert self.said(self.world.journal.append(append)) == self.done[append.append_id]

    @rule(run_id=runs, count=st.integers(2, 5))
    def race(self, run_id: str, count: int) -> None:
        run, world = self.model[run_id], self.world
        rivals = [
            Append(run_id, run.epoch, len(run.events), (EventDraft(7, bytes([n])),), world.ids.ulid())
            for n in range(count)
        ]

        async def all_at_once() -> list[Appended | BaseException]:
            return await asyncio.gather(*map(world.journal.append, rivals), return_exceptions=True)

        outcomes = self.run(all_at_once())
        won = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Appended)]
        assert len(won) == 1
        run.take(rivals[won[0]])

    @rule(target=commands, run_id=runs, payload=payloads)
    def tell(self, run_id: str, payload: bytes) -> Command:
        command = Command(self.world.ids.uuid(), run_id, TENANT, "steer", "ann", payload)
        self.give(command)
        return command

    def give(self, command: Command) -> bool:
        run = self.model[command.run_id]
        answer = self.said(self.world.journal.command(command))
        if run.terminal:
            assert answer == "RUN_ENDED"
            return False
        run.control_gen += 1
        run.pending.append(command.cmd_id)
        assert not isinstance(answer, str)
        assert (answer.control_gen, answer.replayed) == (run.control_gen, False)
        return True

    @rule(command=commands)
    def tell_again(self, command: Command) -> None:
        run = self.model[command.run_id]
        before = run.control_gen
        answer = self.said(self.world.journal.command(command))
        if isinstance(answer, str):
            assert (answer, run.terminal) == ("RUN_ENDED", True)
        elif not answer.replayed:  # It was refused before, because the run had ended, and the run goes on now.
            run.control_gen, run.pending = before + 1, [*run.pending, command.cmd_id]
        assert self.run(self.world.journal.head(command.run_id)).control_gen == run.control_gen

    @rule(target=questions, append=appends)
    def remember(self, append: Append) -> MultipleResults[tuple[str, str]]:
        asked = append.new_approvals if append.append_id in self.done else ()
        return multiple(*((append.run_id, new.approval_id) for new in asked))

    @rule(question=questions, status=st.sampled_from(("GRANTED", "DENIED", "EXPIRED")))
    def decide(self, question: tuple[str, str], status: str) -> None:
        run_id, approval_id = question
        run = self.model[run_id]
        wanted, asked = ApprovalStatus(status), run.questions[approval_id]
        over = self.world.clock.now_ms() >= asked.expires_ms
        decision = ApprovalDecision(approval_id, wanted)
        command = Command(self.world.ids.uuid(), run_id, TENANT, "decide", "ann", decision=decision)
        if not run.terminal and (asked.status is not PENDING or over is not (wanted is ApprovalStatus.EXPIRED)):
            assert self.said(self.world.journal.command(command)) == "APPROVAL_NOT_PENDING"
        elif self.give(command):
            asked.status = wanted

    @rule(question=questions, digest=st.sampled_from(("b3:right", "b3:right", "b3:wrong")))
    def use(self, question: tuple[str, str], digest: str) -> None:
        run_id, approval_id = question
        run = self.model[run_id]
        self.write(
            Append(
                run_id,
                run.epoch,
                len(run.events),
                (EventDraft(5, b"intent"),),
                self.world.ids.ulid(),
                control_gen=run.control_gen,
                consume=ApprovalUse(approval_id, digest),
            )
        )

    @rule(seconds=st.sampled_from((0.001, 5.0, 10.0)))
    def wait(self, seconds: float) -> None:
        self.run(self.world.clock.advance(seconds))

    @invariant()
    def both_say_the_same(self) -> None:
        for run_id, run in getattr(self, "model", {}).items():
            head = self.run(self.world.journal.head(run_id))
            owner = (run.owner.node_id, run.owner.incarnation) if run.owner else (None, None)
            assert (head.epoch, head.control_gen, head.terminal) == (run.epoch, run.control_gen, run.terminal)
            assert (head.owner_node, head.owner_incarnation, head.head_seq) == (*owner, len(run.events))
            stored = self.run(self.world.journal.read(run_id))
            assert [(event.kind, event.payload, event.epoch) for event in stored] == run.events
            assert [event.seq for event in stored] == list(range(1, len(run.events) + 1))
            waiting = self.run(self.world.journal.pending_commands(run_id))
            assert [command.cmd_id for command in waiting] == run.pending
            for approval_id, question in run.questions.items():
                assert self.run(self.world.journal.approval(approval_id)).status is question.status


@pytest.mark.timeout(180)
def test_the_journal_on_sqlite_equals_its_model() -> None:
    run_state_machine_as_test(JournalMachine, settings=settings(max_examples=30, stateful_step_count=30, deadline=None))


@pytest.mark.timeout(180)
def test_the_journal_on_postgres_equals_its_model(new_database: Callable[[], str]) -> None:
    class OnPostgres(JournalMachine):
        @staticmethod
        def place(folder: Path) -> Path | str:
            return new_database()

    run_state_machine_as_test(OnPostgres, settings=settings(max_examples=10, stateful_step_count=30, deadline=None))
