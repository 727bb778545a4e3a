"""The RESULT line has the promised form, and nothing that went wrong is passed over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from evals.end_to_end.kills import Kill, Strike
from evals.end_to_end.mesh import Part, Progress
from evals.end_to_end.outcome import Evidence, result_of, shortcomings
from evals.judge import Judgement, WrongField
from evals.sites.fault_proxy import Phase

NUMBERS = tuple(f"INV-{i}" for i in range(12))
FLAWLESS = Judgement(present=NUMBERS, missing=(), duplicates={}, wrong=(), unexpected=())
ABSENT = replace(FLAWLESS, present=NUMBERS[1:], missing=NUMBERS[:1])
GOOD = Evidence(
    records=12,
    judgement=FLAWLESS,
    kills=[Kill(Strike(part, "INV-1", Phase.BEFORE_FORWARD), pid=1, at_s=1.0, back_pid=2, back_s=1.0) for part in Part],
    lies=["INV-3"],
    answers={"approval": True},
    denied=frozenset(),
    progress=Progress("SUCCEEDED", {}, false_successes=1, finished=True, succeeded=True),
    seconds=41.26,
    report=Path("build/proof/report.html"),
)


def test_the_result_line_has_the_promised_form() -> None:
    assert result_of(GOOD).line() == (
        'RESULT {"records":12,"present":12,"duplicates":0,"kills":4,"false_saved_caught":1,"approvals":1,'
        '"model_calls":0,"seconds":41.3,"report":"build/proof/report.html"}'
    )


def test_nothing_is_amiss_when_all_is_as_it_must_be() -> None:
    assert shortcomings(GOOD) == []


BAD = {
    "INV-0 is not in the database": replace(GOOD, judgement=ABSENT),
    "INV-2 is in the database 3 times": replace(GOOD, judgement=replace(FLAWLESS, duplicates={"INV-2": 2})),
    "INV-2 has amount '2' instead of '1'": replace(
        GOOD, judgement=replace(FLAWLESS, wrong=(WrongField("INV-2", "amount", "1", "2"),))
    ),
    "INV-X is in the database and nobody asked for it": replace(
        GOOD, judgement=replace(FLAWLESS, unexpected=("INV-X",))
    ),
    "the run ended as FAILED: no worker": replace(
        GOOD, progress=replace(GOOD.progress, phase="FAILED", succeeded=False, summary="no worker")
    ),
    "the Envoy was not killed": replace(
        GOOD, kills=[kill for kill in GOOD.kills if kill.strike.part is not Part.ENVOY]
    ),
    "the browser worker did not come back": replace(GOOD, kills=[replace(GOOD.kills[0], back_pid=0), *GOOD.kills[1:]]),
    "0 saves were answered falsely and 0 of them caught, not 1 of 1": replace(GOOD, lies=[]),
    "1 saves were answered falsely and 0 of them caught, not 1 of 1": replace(
        GOOD, progress=replace(GOOD.progress, false_successes=0)
    ),
    "0 questions were asked, not 1": replace(GOOD, answers={}),
    "2 questions were asked, not 1": replace(GOOD, answers={"a": True, "b": True}),
    "3 model calls were made": replace(GOOD, progress=replace(GOOD.progress, model_calls=3)),
}


@pytest.mark.parametrize("sentence", BAD)
def test_each_shortcoming_is_said(sentence: str) -> None:
    assert shortcomings(BAD[sentence]) == [sentence]


def test_a_lie_about_a_record_that_is_still_missing_was_not_caught() -> None:
    missing = replace(FLAWLESS, present=NUMBERS[:3], missing=NUMBERS[3:])
    assert result_of(replace(GOOD, judgement=missing)).false_saved_caught == 0


def test_a_refused_record_that_is_absent_is_as_it_must_be() -> None:
    refused = replace(GOOD, judgement=ABSENT, denied=frozenset(("INV-0",)), answers={"approval": False})
    assert shortcomings(refused) == []
    assert (result_of(refused).present, result_of(refused).approvals) == (11, 0)


def test_a_refused_record_that_was_entered_all_the_same_is_a_shortcoming() -> None:
    assert shortcomings(replace(GOOD, denied=frozenset(("INV-0",)))) == [
        "INV-0 is in the database although a person refused it"
    ]
