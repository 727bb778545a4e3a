"""What the documents name is there: tests by their names, files by their paths."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "AGENTS.md", "CHANGELOG.md")
FOLDERS = "control|dashboard|docs|evals|execution|gateway|infra|protos|requirements|tests"
ELSEWHERE = re.compile(r"^dashboard/dist|/(NNNN-title|[A-Z]+)\.[a-z]+$")
"""What a build makes, and what the reader is to name."""


def test_every_test_that_a_document_names_exists() -> None:
    known = set(chain.from_iterable(re.findall(r"def (test_\w+)", path.read_text()) for path in _tests()))
    for name in DOCUMENTS:
        named = set(re.findall(r"`(test_\w+)`", (ROOT / name).read_text()))
        assert named <= known, f"{name} names {sorted(named - known)}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_path_that_a_document_names_exists(name: str) -> None:
    text = (ROOT / name).read_text()
    named = re.findall(rf"`((?:{FOLDERS})/[\w./-]+)`", text) + re.findall(r"\]\(([\w./-]+)\)", text)
    missing = [path for path in named if not ELSEWHERE.search(path) and not (ROOT / path).exists()]
    assert missing == []


def _tests() -> list[Path]:
    return [path for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)]


def test_each_decision_has_a_number_of_its_own_and_says_it() -> None:
    files = sorted((ROOT / "docs" / "adr").glob("*.md"))
    numbers = [file.name[:4] for file in files]
    assert numbers == sorted(set(numbers))
    assert [file.read_text()[:7] for file in files] == [f"# {number}:" for number in numbers]
