"""How fast steps are recorded durably, beside DBOS, LangGraph and the disk itself, in the same minutes.

Rounds follow each other and every ratio is the median of the rounds' own ratios, because a shared disk changes its
speed from minute to minute.

    python -m tests.peers.bench_journal [ROUNDS]
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.peers.measure import PAYLOAD
from tests.peers.report import Aim, machine, publish, table

HERE = Path(__file__).parent
PEERS = Path("build/peers")
SECONDS = 2.0

AIMS = (
    Aim("ratio_dbos_sqlite_64", 40),
    Aim("ratio_langgraph_sqlite_64", 30),
    Aim("ratio_fdatasync_1", 0.4),
    Aim("sqlite_64_steps_per_s"),
    Aim("sqlite_1_steps_per_s"),
    Aim("ratio_dbos_sqlite_1"),
    Aim("ratio_langgraph_sqlite_1"),
    Aim("fdatasync_per_s"),
)

Figures = dict[tuple[str, int], dict[str, float]]

OURS, RAW = "journal", "write + fdatasync"


@dataclass(frozen=True)
class Round:
    """What was measured, and how many times faster we were than each system just before and just after it."""

    found: Figures
    ratios: dict[tuple[str, int], float]


def main(rounds: int) -> None:
    python = peers_python()
    done: list[Round] = []
    settings: dict[str, object] = {}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", flush=True)
        with TemporaryDirectory(dir="build") as folder:
            done.append(one_round(Path(folder), python, settings))
    show(done, settings)
    publish("journal", figures(done), AIMS)


def one_round(folder: Path, python: str, settings: dict[str, object]) -> Round:
    """Each system between two measurements of ours: a shared disk is another one half a minute later."""

    def ours() -> Figures:
        return steps([sys.executable, "-m", "tests.peers.journal_steps"], folder, settings)

    systems = (
        lambda: {(RAW, 1): fdatasync(folder)},
        lambda: steps([python, str(HERE / "dbos_steps.py")], folder, settings),
        lambda: steps([python, str(HERE / "langgraph_steps.py")], folder, settings),
    )
    before = ours()
    round_ = Round(dict(before), {})
    for measure_other in systems:
        other, after = measure_other(), ours()
        round_.found.update(other)
        for (system, at_once), said in other.items():
            around = [each[OURS, at_once]["steps_per_s"] for each in (before, after)]
            round_.ratios[system, at_once] = statistics.mean(around) / said["steps_per_s"]
        before = after
    return round_


def steps(command: Sequence[str], folder: Path, settings: dict[str, object]) -> Figures:
    """Run one system in a process of its own, with 1 and 64 runs at once, and read what it prints."""
    arguments = [*command, str(folder.absolute()), str(SECONDS), "1", "64"]
    printed = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: Figures = {}
    for line in printed.splitlines():
        said = json.loads(line)
        if "settings" in said:
            settings[said["system"]] = said["settings"]
        else:
            found[said.pop("system"), said.pop("at_once")] = said
    return found


def fdatasync(folder: Path) -> dict[str, float]:
    """How often the payload of one step can be appended to a plain file and synced."""
    took: list[float] = []
    with (folder / "raw").open("wb", buffering=0) as file:
        start = time.perf_counter()
        while time.perf_counter() < start + SECONDS:
            began = time.perf_counter()
            file.write(PAYLOAD + PAYLOAD)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
        elapsed = time.perf_counter() - start
    took.sort()
    p50, p99 = took[len(took) // 2], took[int(len(took) * 0.99)]
    return {"steps_per_s": len(took) / elapsed, "p50_ms": p50 * 1e3, "p99_ms": p99 * 1e3, "cpu_us": 0.0}


def figures(rounds: Sequence[Round]) -> dict[str, float]:
    """Every key of AIMS."""

    def speed(system: str, at_once: int) -> float:
        return statistics.median(done.found[system, at_once]["steps_per_s"] for done in rounds)

    def ratio(system: str, at_once: int) -> float:
        return statistics.median(done.ratios[system, at_once] for done in rounds)

    return {
        "ratio_dbos_sqlite_64": ratio("dbos", 64),
        "ratio_langgraph_sqlite_64": ratio("langgraph", 64),
        "ratio_fdatasync_1": ratio(RAW, 1),
        "sqlite_64_steps_per_s": speed(OURS, 64),
        "sqlite_1_steps_per_s": speed(OURS, 1),
        "ratio_dbos_sqlite_1": ratio("dbos", 1),
        "ratio_langgraph_sqlite_1": ratio("langgraph", 1),
        "fdatasync_per_s": speed(RAW, 1),
    }


def show(rounds: Sequence[Round], settings: dict[str, object]) -> None:
    """Medians of the rounds, and what they were measured with."""
    rows: list[tuple[str, ...]] = []
    for system, at_once in rounds[0].found:
        found = [done.found[system, at_once] for done in rounds]
        median = {name: statistics.median(each[name] for each in found) for name in found[0]}
        numbers = (f"{median['steps_per_s']:,.0f}", f"{median['p50_ms']:.2f}", f"{median['p99_ms']:.2f}")
        rows.append((system, str(at_once), *numbers, f"{median['cpu_us']:,.0f}"))
    table("durable steps, 20 a run", ("system", "runs", "steps/s", "p50 ms", "p99 ms", "CPU µs/step"), rows)
    for system, each in settings.items():
        print(f"{system}: {each}")
    print(f"machine: {machine()}")


def peers_python() -> str:
    """The interpreter of the environment that holds the peers, which `make bench-journal` makes first."""
    python = PEERS / "bin" / "python"
    if not python.exists():
        sys.exit("bench-journal: the peers are not installed; run `make bench-journal`")
    return str(python)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
