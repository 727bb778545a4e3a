"""How many small mistakes the tests notice: `python -m tests.mutation.mutate [AREA…] [--sample 20] [--seed 1]`.

Every mutant is one changed spot of one module (spots.py), tried against the tests of its area (areas.py) that run the
changed line, quick ones first, in a fork of a process that has loaded all else (trial.py, forks.py). A test that acts
in another process sees no mutant there, and so notices none. What nobody notices is listed, here and in
build/mutation.json; SURVIVORS.md says why it may stay. Ends with 1 when an area notices less than FLOOR.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import random
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType

from tests.mutation.areas import AREAS, ROOT, Area
from tests.mutation.forks import TIMED_OUT, Job, in_forks
from tests.mutation.spots import Spot, spots
from tests.mutation.trial import Mutant, Traced, forget_ours, trace, traced, try_mutant

FLOOR = 80  # percent
PARALLEL = 2
TRACING_SECONDS = 600
REPORT = ROOT / "build/mutation.json"


@dataclass(slots=True)
class Score:
    """What became of the mutants of one module."""

    module: str
    mutants: int = 0
    noticed: int = 0
    hung: int = 0  # of those noticed, only because a test took much longer than it does
    survivors: list[Spot] = field(default_factory=list[Spot])

    def note(self, spot: Spot, code: int) -> None:
        self.mutants += 1
        if code == 0:
            self.survivors.append(spot)
            _say(f"  {self.module}:{spot}")
        else:
            self.noticed += 1
            self.hung += code == TIMED_OUT


@dataclass(frozen=True, slots=True)
class Campaign:
    """An area, its chosen mutants and what its tests run."""

    tests: Mapping[str, Traced]
    paths: Mapping[str, Path]
    texts: Mapping[str, str]  # read once: whoever edits meanwhile must not move the spots

    def job(self, module: str, spot: Spot) -> Job[tuple[str, Spot]]:
        chosen = self._tests_of(module, spot)
        finder = Mutant(module, self.paths[module], self.texts[module], spot)
        work = partial(try_mutant, finder, chosen, self.tests.keys())
        return Job((module, spot), work if chosen else lambda _folder: 0, 30 + 5 * sum(chosen.values()))

    def _tests_of(self, module: str, spot: Spot) -> dict[str, float]:
        """The tests that can notice it, the quick ones first.

        Of a change at import those that run its module at all; every test when the module only names things.
        """
        ran = {name: set(test.lines.get(module, ())) for name, test in self.tests.items()}
        able = [name for name, lines in ran.items() if (lines & set(spot.lines) if spot.lines else lines)]
        if not able and not spot.lines:
            able = list(ran)
        return {name: self.tests[name].seconds for name in sorted(able, key=lambda name: self.tests[name].seconds)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sample", type=int, default=20, help="mutants of each module; 0 means all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--module", action="append", default=[], help="only modules whose name ends so")
    parser.add_argument("areas", nargs="*", metavar="AREA", help=", ".join(area.name for area in AREAS))
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    chosen = [area for area in AREAS if not asked.areas or area.name in asked.areas]
    if unknown := set(asked.areas) - {area.name for area in chosen}:
        parser.error(f"no area is called {', '.join(sorted(unknown))}: there are {', '.join(a.name for a in AREAS)}")
    _load_what_is_not_ours(chosen)
    scores = {area.name: _score(area, asked.sample, asked.seed, asked.module) for area in chosen}
    _report(scores, asked.sample, asked.seed)
    sys.exit(any(_percent(of_area) < FLOOR for of_area in scores.values()))


def _end(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)  # and not at once, so that the forks end, too


def _load_what_is_not_ours(areas: Sequence[Area]) -> None:
    """Once, before the forks. Ours are forgotten again: what a module sets up at import belongs into one fork."""
    for area in areas:
        for module in area.sources():
            importlib.import_module(module)
    forget_ours()


def _score(area: Area, sample: int, seed: int, endings: Sequence[str]) -> list[Score]:
    paths = {name: path for name, path in area.sources().items() if not endings or name.endswith(tuple(endings))}
    texts = {name: path.read_text() for name, path in paths.items()}
    campaign = Campaign(_traced(area), paths, texts)
    scores = {module: Score(module) for module in paths}
    jobs = (campaign.job(name, spot) for name, text in texts.items() for spot in _sampled(name, text, sample, seed))
    for (module, spot), code in in_forks(jobs, PARALLEL):
        scores[module].note(spot, code)
    return [score for score in scores.values() if score.mutants]


def _traced(area: Area) -> dict[str, Traced]:
    _say(f"{area.name}: which test runs which line …")
    with tempfile.NamedTemporaryFile() as answer:
        path = Path(answer.name)
        [(_, code)] = in_forks([Job(area.name, lambda folder: trace(area, folder, path), TRACING_SECONDS)], 1)
        if code:
            sys.exit(f"the tests of {area.name} do not even pass on what is not changed:\n{path.read_text()}")
        tests = traced(path)
    seconds = {name: test.seconds for name, test in tests.items()}
    control = Job(area.name, partial(try_mutant, None, seconds, tests.keys()), TRACING_SECONDS)
    if any(code for _, code in in_forks([control], 1)):
        sys.exit(f"the tests of {area.name} notice a mutant where nothing is changed: they are not reliable enough")
    return tests


def _sampled(module: str, text: str, sample: int, seed: int) -> Iterator[Spot]:
    every = list(spots(ast.parse(text)))
    if sample and len(every) > sample:
        every = sorted(random.Random(f"{seed} {module}").sample(every, sample), key=lambda spot: spot.line)
    yield from every


def _report(scores: Mapping[str, Sequence[Score]], sample: int, seed: int) -> None:
    _say(f"\n{'area':8} {'module':36} {'mutants':>7} {'noticed':>7} {'%':>4} {'survivors':>9}")
    for area, of_area in scores.items():
        for score in of_area:
            _line(area, score.module, [score])
        _line(area, "all", of_area)
    areas = {
        area: {"percent": _percent(of_area), "modules": {score.module: _plain(score) for score in of_area}}
        for area, of_area in scores.items()
    }
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps({"sample": sample, "seed": seed, "areas": areas}, indent=1) + "\n")


def _line(area: str, name: str, scores: Sequence[Score]) -> None:
    mutants, noticed = sum(score.mutants for score in scores), sum(score.noticed for score in scores)
    _say(f"{area:8} {name:36} {mutants:7} {noticed:7} {_percent(scores):4.0f} {mutants - noticed:9}")


def _plain(score: Score) -> dict[str, object]:
    return {
        "mutants": score.mutants,
        "noticed": score.noticed,
        "hung": score.hung,
        "survivors": [str(spot) for spot in sorted(score.survivors, key=lambda spot: spot.line)],
    }


def _percent(scores: Sequence[Score]) -> float:
    mutants = sum(score.mutants for score in scores)
    return 100 * sum(score.noticed for score in scores) / mutants if mutants else 100.0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
