"""What a proof comes to: the one line that says it, and everything that must be so for it to hold."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from evals.end_to_end.kills import Kill
from evals.end_to_end.mesh import Part, Progress
from evals.judge import Judgement


@dataclass(frozen=True, slots=True)
class Result:
    """The figures of the RESULT line, in its order."""

    records: int
    present: int
    duplicates: int
    kills: int
    false_saved_caught: int
    approvals: int
    model_calls: int
    seconds: float
    report: str

    def line(self) -> str:
        """`RESULT {…}`, compact."""
        return "RESULT " + json.dumps(asdict(self), separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that was seen. `answers` holds the person's answers by approval id; `denied` the numbers refused thereby."""

    records: int
    judgement: Judgement
    kills: Sequence[Kill]
    lies: Sequence[str]
    answers: Mapping[str, bool]
    denied: frozenset[str]
    progress: Progress
    seconds: float
    report: Path


def result_of(evidence: Evidence) -> Result:
    """The figures."""
    return Result(
        records=evidence.records,
        present=len(evidence.judgement.present),
        duplicates=evidence.judgement.surplus,
        kills=len(evidence.kills),
        false_saved_caught=_caught(evidence),
        approvals=sum(evidence.answers.values()),
        model_calls=evidence.progress.model_calls,
        seconds=round(evidence.seconds, 1),
        report=str(evidence.report),
    )


def shortcomings(evidence: Evidence) -> list[str]:
    """What is not as it must be, one sentence each; empty when the proof holds."""
    return [*_of_the_books(evidence.judgement, evidence.denied), *_of_the_run(evidence)]


def _of_the_books(judgement: Judgement, denied: frozenset[str]) -> Iterator[str]:
    missing = set(judgement.missing)
    for number in sorted(missing - denied):
        yield f"{number} is not in the database"
    for number in sorted(denied - missing):
        yield f"{number} is in the database although a person refused it"
    for number, surplus in judgement.duplicates.items():
        yield f"{number} is in the database {surplus + 1} times"
    for flaw in judgement.wrong:
        yield f"{flaw.number} has {flaw.field} {flaw.found!r} instead of {flaw.expected!r}"
    for number in judgement.unexpected:
        yield f"{number} is in the database and nobody asked for it"


def _of_the_run(evidence: Evidence) -> Iterator[str]:
    progress = evidence.progress
    if not progress.succeeded and not evidence.denied:
        yield f"the run ended as {progress.phase}: {progress.summary}"
    for part in set(Part) - {kill.strike.part for kill in evidence.kills}:
        yield f"the {part} was not killed"
    for kill in evidence.kills:
        if not kill.back_pid:
            yield f"the {kill.strike.part} did not come back"
    if _caught(evidence) != 1:
        yield f"{len(evidence.lies)} saves were answered falsely and {_caught(evidence)} of them caught, not 1 of 1"
    if len(evidence.answers) != 1:
        yield f"{len(evidence.answers)} questions were asked, not 1"
    if progress.model_calls:
        yield f"{progress.model_calls} model calls were made"


def _caught(evidence: Evidence) -> int:
    """Lies that the validator noticed: the mesh counted one, and the record is in the database all the same."""
    believed = [number for number in evidence.lies if number not in evidence.judgement.present]
    return min(evidence.progress.false_successes, len(evidence.lies)) if not believed else 0
