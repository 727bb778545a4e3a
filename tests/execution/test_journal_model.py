"""The journal against a model of a few lines: whatever is asked of it, in any order, with crashes in between."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from execution.attempts import AttemptKey, Begun, Fence, Known, Record, Refusal, Refused, State
from execution.journal import open_journal
from infra.clock import ManualClock
from infra.ids import seeded_ids

keys = st.builds(AttemptKey, st.sampled_from("RS"), st.sampled_from("ab"), st.integers(1, 3))
fences = st.builds(Fence, st.integers(0, 1), st.integers(1, 3))
digests = st.sampled_from(["b3:one", "b3:two"])
ZERO = Fence(0, 0)


@dataclass(frozen=True)
class Row:
    state: State
    fence: Fence
    digest: str
    outcome: bytes | None = None


class JournalMachine(RuleBasedStateMachine):
    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.clock = ManualClock()
        self.rows: dict[AttemptKey, Row] = {}
        self.fences: dict[str, Fence] = {}
        self.ended: set[str] = set()
        self.executions: dict[AttemptKey, int] = {}
        self.answers: dict[AttemptKey, bytes] = {}
        self._hold()

    def teardown(self) -> None:
        self.stack.close()
        shutil.rmtree(self.folder)

    @rule(key=keys, fence=fences, digest=digests)
    def begin(self, key: AttemptKey, fence: Fence, digest: str) -> None:
        with self.journal.transaction():
            answer = self.journal.begin(key, fence, digest, 4)
        row = self.rows.get(key)
        if row is not None and row.digest not in ("", digest):
            assert isinstance(answer, Refused)
            assert answer.reason is Refusal.OTHER_ACTION
        elif row is not None:
            self._adopt(key, fence)
            assert isinstance(answer, Known)
            self._same(answer.record)
        elif (refusal := self._refusal(key, fence)) is not None:
            assert answer == Refused(refusal)
        elif key.attempt < max((k.attempt for k in self.rows if self._same_step(k, key)), default=0):
            assert answer == Refused(Refusal.STALE_ATTEMPT)
            self.fences[key.run_id] = fence
        else:
            assert isinstance(answer, Begun)
            self.executions[key] = self.executions.get(key, 0) + 1
            self.fences[key.run_id] = fence
            self.rows[key] = Row(State.BEGUN, fence, digest)

    @rule(key=keys, fence=fences)
    def entomb(self, key: AttemptKey, fence: Fence) -> None:
        with self.journal.transaction():
            answer = self.journal.entomb(key, fence, b"never")
        if key in self.rows:
            self._adopt(key, fence)
        elif (refusal := self._refusal(key, fence)) is not None:
            assert answer == Refused(refusal)
            return
        else:
            self.fences[key.run_id] = fence
            self.rows[key] = Row(State.TOMBSTONE, fence, "", b"never")
        assert isinstance(answer, Record)
        self._same(answer)

    @rule(key=keys, fence=fences)
    def inspect(self, key: AttemptKey, fence: Fence) -> None:
        with self.journal.transaction():
            answer = self.journal.inspect(key, fence)
        if key in self.rows:
            self._adopt(key, fence)
            assert answer is not None
            self._same(answer)
        else:
            assert answer is None
            if self._refusal(key, fence) is None:
                self.fences[key.run_id] = fence

    @rule(data=st.data(), outcome=st.binary(max_size=4))
    def finish(self, data: st.DataObject, outcome: bytes) -> None:
        begun = [key for key, row in self.rows.items() if row.state is State.BEGUN]
        if begun:
            key = data.draw(st.sampled_from(begun))
            with self.journal.transaction():
                self.journal.finish(key, outcome)
            self.rows[key] = replace(self.rows[key], state=State.DONE, outcome=outcome)

    @rule(key=keys)
    def release(self, key: AttemptKey) -> None:
        with self.journal.transaction():
            released = self.journal.release(key)
        row = self.rows.get(key)
        expected = row is not None and row.state in (State.DONE, State.LOST, State.TOMBSTONE)
        assert released is expected
        if row is not None and expected:
            self.rows[key] = replace(row, state=State.RELEASED, outcome=None)
        if key.run_id in self.ended and key in self.rows and self.rows[key].state is State.RELEASED:
            del self.rows[key]

    @rule(run=st.sampled_from("RS"))
    def end_run(self, run: str) -> None:
        with self.journal.transaction():
            self.journal.end_run(run)
        self.ended.add(run)
        self.rows = {k: row for k, row in self.rows.items() if k.run_id != run or row.state is State.BEGUN}

    @rule()
    def crash(self) -> None:
        self.stack.close()
        self._hold()
        for key, row in self.rows.items():
            if row.state is State.BEGUN:
                self.rows[key] = replace(row, state=State.LOST)

    @invariant()
    def holds_exactly_what_it_should(self) -> None:
        with self.journal.transaction():
            held = {record.key: record for record in self.journal.unreleased()}
        assert set(held) == {key for key, row in self.rows.items() if row.state is not State.RELEASED}
        for record in held.values():
            self._same(record)

    @invariant()
    def executes_at_most_once(self) -> None:
        assert all(count == 1 for count in self.executions.values())

    def _hold(self) -> None:
        self.stack = ExitStack()
        self.journal = self.stack.enter_context(
            open_journal(self.folder, clock=self.clock, ids=seeded_ids(1, self.clock))
        )

    def _adopt(self, key: AttemptKey, fence: Fence) -> None:
        self.fences[key.run_id] = max(fence, self.fences.get(key.run_id, ZERO))
        self.rows[key] = replace(self.rows[key], fence=max(fence, self.rows[key].fence))

    def _refusal(self, key: AttemptKey, fence: Fence) -> Refusal | None:
        if key.run_id in self.ended:
            return Refusal.RUN_ENDED
        return Refusal.STALE_FENCE if fence < self.fences.get(key.run_id, ZERO) else None

    def _same(self, record: Record) -> None:
        row = self.rows[record.key]
        assert (record.state, record.fence, record.action_digest, record.outcome) == (
            row.state,
            row.fence,
            row.digest,
            row.outcome,
        )

    @staticmethod
    def _same_step(one: AttemptKey, other: AttemptKey) -> bool:
        return (one.run_id, one.step_id) == (other.run_id, other.step_id)


TestJournalMachine = JournalMachine.TestCase
TestJournalMachine.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
)
