"""What a check is, how it can end, and what is kept of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, TypeVar

BenchT = TypeVar("BenchT")


class Verdict(StrEnum):
    """How a check ended."""

    PASS = "PASS"  # noqa: S105 - no password
    FAIL = "FAIL"
    SKIP = "SKIP"


class Failed(Exception):
    """The worker broke the rule. The text says what was seen instead."""


class NotTried(Exception):
    """The rule could not be tried here, so that nothing is known of it."""


class NotOffered(Exception):
    """The rule binds only workers that offer something, and this one does not."""


@dataclass(frozen=True, slots=True)
class Check(Generic[BenchT]):
    """One rule, tried. `rule` is a sentence; an advised rule that is broken fails no worker."""

    name: str
    rule: str
    attempt: Callable[[BenchT], Awaitable[None]]
    required: bool = True


@dataclass(frozen=True, slots=True)
class Line:
    """A frame or an event of a trial; `at` is in seconds since its start."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Result:
    """How a check ended, and what was said and heard meanwhile."""

    name: str
    rule: str
    required: bool
    verdict: Verdict
    reason: str
    seconds: float
    evidence: Sequence[Line] = ()
    tried: bool = True
    """False for a check that was skipped although the rule binds this worker."""


@dataclass(frozen=True, slots=True)
class Report:
    """A whole trial."""

    worker: str
    started_ms: int
    results: Sequence[Result] = field(default_factory=tuple)
    worker_log: str = ""

    @property
    def failed(self) -> Sequence[Result]:
        """Required rules that were broken."""
        return [each for each in self.results if each.required and each.verdict is Verdict.FAIL]

    @property
    def untried(self) -> Sequence[Result]:
        """Required rules of which nothing is known."""
        return [each for each in self.results if each.required and not each.tried]

    @property
    def conforms(self) -> bool:
        """Whether every required rule was tried and held, or does not bind this worker."""
        return bool(self.results) and not self.failed and not self.untried
