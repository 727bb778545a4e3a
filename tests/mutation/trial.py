"""The tests of an area in this process, which is a fork: traced, or against a mutant.

The parent has loaded everything that is not ours; here our own modules are loaded anew, one of them changed.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import threading
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from time import monotonic
from types import FrameType, ModuleType
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.mutation.areas import ROOT, WITHOUT, Area
from tests.mutation.spots import Spot, mutate

if TYPE_CHECKING:
    from _typeshed import TraceFunction

OURS = ("control", "evals", "execution", "gateway", "infra", "tests")
NOTICED = 1
_EXAMPLES = 10


@dataclass(frozen=True, slots=True)
class Traced:
    """What a test takes and which lines of which modules it runs."""

    seconds: float
    lines: Mapping[str, Collection[int]]


class Tracer:
    """A pytest plugin: notes the lines that each test runs, its fixtures included, in whatever thread."""

    def __init__(self, sources: Mapping[str, Path]) -> None:
        self.tests: dict[str, Traced] = {}
        self.failure = ""
        self._modules = {str(path): name for name, path in sources.items()}
        self._ran: dict[str, set[int]] = {}
        self._collected: dict[str, dict[str, set[int]]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Generator[None, object, object]:
        # What a file of tests prepares when it is imported is run by each of its tests.
        self._ran = {}
        try:
            return (yield)
        finally:
            if isinstance(collector, pytest.Module):
                self._collected[collector.nodeid] = self._ran

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        before = self._collected.get(item.nodeid.partition("::")[0], {})
        self._ran = {name: set(lines) for name, lines in before.items()}
        self._forget_what_was_remembered()
        start = monotonic()
        try:
            return (yield)
        finally:
            self.tests[item.nodeid] = Traced(
                monotonic() - start, {name: sorted(ran) for name, ran in self._ran.items()}
            )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failure = report.longreprtext

    def start(self) -> None:
        sys.settrace(self._called)
        threading.settrace(self._called)

    def _called(self, frame: FrameType, event: str, arg: object, /) -> TraceFunction | None:
        module = self._modules.get(frame.f_code.co_filename)
        if module is None:
            return None
        ran = self._ran.setdefault(module, set())
        ran.add(frame.f_lineno)

        def line(frame: FrameType, event: str, arg: object, /) -> TraceFunction:
            ran.add(frame.f_lineno)
            return line

        return line

    def _forget_what_was_remembered(self) -> None:
        # Otherwise only the first test that asks a cached function would be seen to run it.
        for name in self._modules.values():
            for value in vars(sys.modules.get(name, threading)).values():
                if callable(forget := getattr(value, "cache_clear", None)):
                    forget()


class Chosen:
    """A pytest plugin: runs these tests, in this order, and ends the process at the first that fails."""

    def __init__(self, seconds: Mapping[str, float], known: Collection[str]) -> None:
        self._seconds = {test: (place, taken) for place, (test, taken) in enumerate(seconds.items())}
        self._bases = {_base(test): place for test, place in self._seconds.items()}
        self._known = known

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        wanted = [(place, item) for item in items if (place := self._place(item.nodeid)) is not None]
        wanted.sort(key=lambda pair: pair[0])
        items[:] = [item for _, item in wanted]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        # The kernel ends the process: a mutant may wait where no exception of pytest-timeout would get it out.
        _, taken = self._place(item.nodeid) or (0, 0.0)
        signal.setitimer(signal.ITIMER_REAL, 5 + 5 * taken)
        return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            os._exit(NOTICED)

    def _place(self, test: str) -> tuple[int, float] | None:
        # A mutant may change the parameters of a test, and with them its name.
        return self._seconds.get(test) or (None if test in self._known else self._bases.get(_base(test)))


class Mutant(importlib.abc.Loader, importlib.abc.MetaPathFinder):
    """Loads one module with one change."""

    def __init__(self, name: str, path: Path, text: str, spot: Spot) -> None:
        self._name, self._path = name, path
        self._tree = ast.parse(text)
        mutate(list(ast.walk(self._tree))[spot.position], spot.variant)
        ast.fix_missing_locations(self._tree)

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return importlib.util.spec_from_loader(fullname, self) if fullname == self._name else None

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(self._path)
        exec(compile(self._tree, str(self._path), "exec"), module.__dict__)


def trace(area: Area, folder: Path, answer: Path) -> int:
    """Runs every test of the area on what is not changed and writes what `traced` reads."""
    forget_ours()
    tracer = Tracer(area.sources())
    tracer.start()
    code = run_tests(area.test_files(), folder, tracer)
    tests = {name: {"seconds": test.seconds, "lines": dict(test.lines)} for name, test in tracer.tests.items()}
    answer.write_text(tracer.failure if code else json.dumps(tests))
    return code


def traced(answer: Path) -> dict[str, Traced]:
    """What `trace` wrote."""
    return {name: Traced(test["seconds"], test["lines"]) for name, test in json.loads(answer.read_text()).items()}


def try_mutant(finder: Mutant | None, tests: Mapping[str, float], known: Collection[str], folder: Path) -> int:
    """0 when none of these tests notices the mutant; without one, nothing is changed."""
    forget_ours()
    if finder is not None:
        sys.meta_path.insert(0, finder)
    files = dict.fromkeys(str(ROOT / test.partition("::")[0]) for test in tests)
    return run_tests(files, folder, Chosen(tests, known))


def run_tests(files: Iterable[str], folder: Path, plugin: object) -> int:
    hypothesis.settings.register_profile(
        "few",
        max_examples=_EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=tuple(hypothesis.HealthCheck),  # being traced on a busy machine is slow
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),  # it fails or it does not: nobody reads how
    )
    options = ["-k", WITHOUT, "-x", "-q", "--assert=plain", "--timeout=0", "-p", "no:cacheprovider"]
    options += ["--hypothesis-profile=few", f"--rootdir={ROOT}"]
    return int(pytest.main([*options, f"--basetemp={folder}/t", *files], plugins=[plugin]))


def forget_ours() -> None:
    """So that our modules are loaded anew, the changed one among them."""
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        if not name.startswith("tests.mutation"):
            del sys.modules[name]


def _base(test: str) -> str:
    return test.partition("[")[0]
