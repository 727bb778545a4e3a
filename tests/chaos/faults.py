"""The rules of PROTOCOL that a campaign turns off one at a time, to show that it would notice.

Each is a context manager: inside, one rule is off in this process.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from control.journal import Append, StaleOwner, append_careful
from control.journal.appending import Written
from execution import wire
from execution.attempts import AttemptKey, Fence, Refusal
from execution.journal import Journal
from execution.session import Session
from infra.db.driver import Driver
from infra.errors import SkyError
from skyagent.execution.v1 import worker_service_pb2 as pb


@contextmanager
def replaced(owner: Any, **by: object) -> Generator[None]:  # noqa: ANN401 -- a module or a class
    """Something of a module or class is something else inside."""
    before = {name: getattr(owner, name) for name in by}
    for name, value in by.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


@contextmanager
def forgetful() -> Generator[None]:
    """A worker keeps no journal over its death."""

    def forgetting(self: Journal) -> None:
        for table in ("steps", "runs"):
            self._execute(f"DELETE FROM {table}")  # pyright: ignore[reportPrivateUsage] -- the rule that is turned off

    with replaced(Journal, lose_begun=forgetting):
        yield


@contextmanager
def unfenced_worker() -> Generator[None]:
    """A worker obeys an owner that was overtaken."""

    def refusal(self: Journal, key: AttemptKey, fence: Fence) -> Refusal | None:
        return Refusal.RUN_ENDED if self.has_ended(key.run_id) else None

    with replaced(Journal, _refusal=refusal):
        yield


@contextmanager
def unfenced_journal() -> Generator[None]:
    """The journal lets an owner append that was overtaken."""
    unfenced = {
        name: getattr(append_careful, name).replace("epoch = ?", "? IS NOT NULL")
        for name in ("_MOVE", "_MOVE_UNDER_CONTROL")
    }
    objection = append_careful._objection  # pyright: ignore[reportPrivateUsage] -- the rule that is turned off

    def obliging(driver: Driver, append: Append) -> Written | SkyError | None:
        why = objection(driver, append)
        return objection(driver, replace(append, epoch=why.epoch)) if isinstance(why, StaleOwner) else why

    with replaced(append_careful, **unfenced, _objection=obliging):
        yield


@contextmanager
def trusting() -> Generator[None]:
    """A worker takes the transport's ack for ResultRecorded."""
    sent, apply = Session._sent, Session._apply  # pyright: ignore[reportPrivateUsage] -- the rule that is turned off
    waiting: WeakKeyDictionary[Session, dict[int, AttemptKey]] = WeakKeyDictionary()

    def noting(self: Session, frame: pb.ControlRequest) -> None:
        if frame.HasField("step_result"):
            waiting.setdefault(self, {})[frame.seq] = wire.key_of(frame.step_result.key)
        sent(self, frame)

    def believing(self: Session, frame: pb.ControlResponse) -> None:
        mine = waiting.setdefault(self, {})
        for seq in [seq for seq in mine if seq <= frame.ack]:
            self._parts.group.create_task(self._release(mine.pop(seq)))  # pyright: ignore[reportPrivateUsage] -- the same
        apply(self, frame)

    with replaced(Session, _sent=noting, _apply=believing):
        yield


FAULTS = {
    "forgetful": forgetful,
    "unfenced": unfenced_worker,
    "unfenced-journal": unfenced_journal,
    "trusting": trusting,
}
