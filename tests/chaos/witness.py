"""What a process of a campaign writes down while it runs, beside everything it does, for the invariants to be checked.

A line each, the words of which are ids and numbers, written before anybody could kill the process for what it tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from control.orchestrator.attempts import Attempts
from control.orchestrator.links import WorkerLink
from execution.attempts import AttemptKey, Begun, Fence, Known, Record, Refused
from execution.journal import Journal
from skyagent.run.v1 import state_pb2 as st
from tests.chaos.invariants import Sent
from tests.chaos.remains import Attempt

Answer = Begun | Known | Refused
_SENT = "sent"
_RECORDED = "recorded"
_BEGUN = "begun"


def witness_assigns(folder: Path) -> None:
    """Every Assign of this process is written down before it is queued."""
    assign = Attempts.assign

    def told(self: Attempts, link: WorkerLink, record: st.NodeRecord, attempt: st.AttemptRecord) -> None:
        state = self.ledger.state
        _write(folder / _SENT, state.run_id, record.node.node_id, attempt.attempt, state.seq)
        assign(self, link, record, attempt)

    Attempts.assign = told


def witness_outcomes(folder: Path) -> None:
    """Every attempt that this process journals as begun, and every outcome, is written down as well."""
    finish, begin = Journal.finish, Journal.begin

    def told(self: Journal, key: AttemptKey, outcome: bytes) -> Record:
        done = finish(self, key, outcome)
        _write(folder / _RECORDED, key.run_id, key.step_id, key.attempt)
        return done

    def beginning(self: Journal, key: AttemptKey, fence: Fence, action_digest: str, effect_class: int) -> Answer:
        answer = begin(self, key, fence, action_digest, effect_class)
        if isinstance(answer, Begun):
            _write(folder / _BEGUN, key.run_id, key.step_id, key.attempt)
        return answer

    Journal.finish, Journal.begin = told, beginning


def sent(folder: Path) -> Iterator[Sent]:
    """Every Assign of a campaign."""
    for run_id, step_id, attempt, seq in _read(folder / _SENT):
        yield Sent(Attempt(run_id, step_id, int(attempt)), int(seq))


def recorded(folder: Path) -> Iterator[Attempt]:
    """Every attempt whose outcome a worker of a campaign journalled."""
    for run_id, step_id, attempt in _read(folder / _RECORDED):
        yield Attempt(run_id, step_id, int(attempt))


def begun(folder: Path) -> Iterator[Attempt]:
    """Every attempt that a worker of a campaign journalled as begun, or was about to."""
    for run_id, step_id, attempt in _read(folder / _BEGUN):
        yield Attempt(run_id, step_id, int(attempt))


def _write(path: Path, *words: str | int) -> None:
    with path.open("a") as file:
        file.write(" ".join(map(str, words)) + "\n")


def _read(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []
