"""Schedules by their seeds: `python -m tests.simulation --seed 1 --seeds 1000`; `make simulate` is the same.

A schedule that breaks an invariant is printed with the command that replays it. With `--without RULE` one rule of
PROTOCOL is turned off, and the campaign must notice: it ends with 0 at the first violation, else with 1.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from tests.chaos.faults import FAULTS
from tests.simulation.schedule import MISFORTUNES, run, simulating

SEEDS_A_PROCESS = 25
"""What died is never tidied away (VirtualLoop.buried), so processes are short."""
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@dataclass(frozen=True)
class Share:
    """Seeds for one process."""

    seeds: range
    without: str
    mix: tuple[str, ...]
    until: float
    trace: bool


@dataclass(frozen=True)
class Told:
    """What is printed of one schedule."""

    seed: int
    digest: str
    violations: tuple[str, ...]
    trace: tuple[str, ...]


def schedules(share: Share) -> list[Told]:
    """Runs them, as long as there is time. In a process of its own, which then ends."""
    told: list[Told] = []
    off = FAULTS[share.without]() if share.without else nullcontext()
    with off, TemporaryDirectory(dir=MEMORY, prefix="skyagent-simulation-") as folder, simulating() as disk:
        for seed in share.seeds:
            if monotonic() > share.until:
                break
            gc.freeze()
            report = run(seed, disk, Path(folder) / "data", share.mix)
            said = tuple(dict.fromkeys(f"{one.rule}: {one.detail}" for one in report.violations))
            lines = tuple(report.trace.lines) if share.trace else ()
            told.append(Told(seed, report.trace.digest, said, lines))
            if said and share.without:
                break
    return told


def told(arguments: argparse.Namespace) -> Iterator[Told]:
    """The schedules, in about the order of their seeds."""
    until = monotonic() + arguments.seconds
    mix = tuple(arguments.mix.split(",")) if arguments.mix else MISFORTUNES
    first, last = arguments.seed, arguments.seed + arguments.seeds
    shares = [
        Share(range(at, min(at + SEEDS_A_PROCESS, last)), arguments.without, mix, until, arguments.trace)
        for at in range(first, last, SEEDS_A_PROCESS)
    ]
    with get_context("fork").Pool(arguments.processes, maxtasksperchild=1) as pool:
        for some in pool.imap(schedules, shares):
            yield from some


def show(one: Told, arguments: argparse.Namespace) -> None:
    if arguments.trace:
        print(*one.trace, sep="\n")
    if arguments.digests:
        print(one.seed, one.digest)
    if one.violations:
        print(f"\nseed {one.seed}: {len(one.violations)} violations (trace {one.digest})")
        print(*(f"  {said}" for said in one.violations[:8]), sep="\n")
        options = f" --without {arguments.without}" if arguments.without else ""
        options += f" --mix {arguments.mix}" if arguments.mix else ""
        print(f"  replay: python -m tests.simulation --seed {one.seed} --trace{options}", flush=True)


def main(arguments: argparse.Namespace) -> int:
    began, ran, broken = monotonic(), 0, 0
    for one in told(arguments):
        ran, broken = ran + 1, broken + bool(one.violations)
        show(one, arguments)
        if arguments.without and broken:
            print(f"without {arguments.without}: noticed at seed {one.seed}, the {ran}. schedule")
            return 0
        if not ran % 100:
            print(f"{ran} schedules, {broken} broken, {ran / (monotonic() - began) * 60:,.0f} a minute", flush=True)
    seconds = monotonic() - began
    print(
        f"simulated {ran} schedules in {seconds:.1f} s, {ran / seconds * 60:,.0f} a minute; {broken} broke an invariant"
    )
    return 1 if broken or arguments.without or not ran else 0


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of a set of texts is part of a schedule
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
            os.environ | {"PYTHONHASHSEED": "0"},
        )
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no schedule after so long")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--without", choices=sorted(FAULTS), default="", help="the rule that is turned off")
    parser.add_argument("--mix", default="", help=f"which misfortunes: {', '.join(sorted(set(MISFORTUNES)))}")
    parser.add_argument("--trace", action="store_true", help="print everything that happens")
    parser.add_argument("--digests", action="store_true", help="print what tells two runs of a seed apart")
    sys.exit(main(parser.parse_args()))
