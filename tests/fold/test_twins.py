"""The fold is written twice, in Python and in TypeScript; both must give the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from control.core.run import FOLD_VERSION, fold
from control.core.summary import state_digest
from tests.fold import journals, mixed
from tests.fold.record import GOLDEN

in_typescript = pytest.mark.skipif(
    not (journals.DASHBOARD / "node_modules").exists(), reason="`make setup` installs the dashboard's packages"
)
KEPT = json.loads((GOLDEN / "digests.json").read_text())
"""Of version 1; those of a later one stand in a folder of its own (tests/fold/record.py)."""


@pytest.mark.parametrize("name", KEPT["digests"])
def test_a_golden_journal_folds_to_the_state_it_always_had(name: str) -> None:
    assert KEPT["fold_version"] <= FOLD_VERSION
    events = journals.read(GOLDEN / f"{name}.journal")
    assert state_digest(fold(events)) == KEPT["digests"][name]


@in_typescript
@pytest.mark.timeout(180)
def test_ten_thousand_mixed_events_fold_to_the_same_state_in_typescript(tmp_path: Path) -> None:
    lengths = [*(60 for _ in range(50)), 7_000]
    events = [list(mixed.journal(seed, length)) for seed, length in enumerate(lengths)]
    assert sum(map(len, events)) == 10_000
    paths = [journals.write(tmp_path / f"{seed}.journal", each) for seed, each in enumerate(events)]
    assert journals.typescript_digests(paths) == [state_digest(fold(each)) for each in events]


@in_typescript
def test_one_changed_field_changes_the_digest_in_both(tmp_path: Path) -> None:
    events = list(mixed.journal(seed=7, length=80))
    events[-1].body.run_finished.summary += "!"
    before, after = state_digest(fold(mixed.journal(seed=7, length=80))), state_digest(fold(events))
    assert after != before
    assert journals.typescript_digests([journals.write(tmp_path / "changed", events)]) == [after]


def test_mixed_journals_hold_every_kind_of_event() -> None:
    kinds = {event.body.WhichOneof("kind") for event in mixed.journal(seed=1, length=2_000)}
    assert kinds == {*mixed.KINDS, "run_created", "run_finished", None}
