"""What is mutated, and the tests that are run against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEFT_OUT = ("__init__", "append_postgres")
"""Of a package that only names things there is nothing to mutate; a server for each mutant takes too long."""
WITHOUT = "not postgres"
"""The tests, as pytest's -k has it."""


@dataclass(frozen=True, slots=True)
class Area:
    """Modules and tests as patterns from the root of the repository; the tests of an area are run in one process."""

    name: str
    modules: Sequence[str]
    tests: Sequence[str]

    def sources(self) -> dict[str, Path]:
        """The files of the modules, by the name they are imported under; a package that only names things has none."""
        paths = (path for pattern in self.modules for path in sorted(ROOT.glob(pattern)) if path.stem not in LEFT_OUT)
        return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}

    def test_files(self) -> list[str]:
        return [str(path) for pattern in self.tests for path in sorted(ROOT.glob(pattern))]


AREAS = (
    Area("core", ("control/core/*.py",), ("tests/control/core/test_*.py",)),
    Area(
        "journal",
        ("control/journal/*.py", "control/journal/queries/*.py", "infra/db/writer.py"),
        ("tests/control/journal/test_*.py", "tests/infra/db/test_*.py"),
    ),
    Area(
        "worker",
        # Whatever decides that a step begins, how it ends, whose word counts and what is told of it.
        tuple(
            f"execution/{name}.py"
            for name in (
                *("journal", "committer", "attempts", "admission", "lease", "steps", "session", "uplink"),
                *("wire", "blobs", "stream"),
            )
        ),
        ("tests/execution/test_*.py",),
    ),
)
