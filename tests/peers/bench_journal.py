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


def main(rounds: int) -> None:
    python = peers_python()
    done: list[Figures] = []
    settings: dict[str, object] = {}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", flush=True)
        with TemporaryDirectory(dir="build") as folder:
            done.append(one_round(Path(folder), python, settings))
    show(done, settings)
    publish("journal", figures(done), AIMS)


def one_round(folder: Path, python: str, settings: dict[str, object]) -> Figures:
    """The disk before and after our single run, so that both meet the same disk."""
    ours = [sys.executable, "-m", "tests.peers.journal_steps"]
    before = fdatasync_per_s(folder)
    found = steps(ours, folder, settings, (1,))
    raw = (before + fdatasync_per_s(folder)) / 2
    found |= steps(ours, folder, settings, (64,))
    found |= steps([python, str(HERE / "dbos_steps.py")], folder, settings, (1, 64))
    found |= steps([python, str(HERE / "langgraph_steps.py")], folder, settings, (1, 64))
    found["write + fdatasync", 1] = {"steps_per_s": raw, "p50_ms": 1e3 / raw, "p99_ms": 0.0, "cpu_us": 0.0}
    return found


def steps(command: Sequence[str], folder: Path, settings: dict[str, object], at_once: Sequence[int]) -> Figures:
    """Run one system in a process of its own and read what it prints."""
    arguments = [*command, str(folder.absolute()), str(SECONDS), *map(str, at_once)]
    printed = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: Figures = {}
    for line in printed.splitlines():
        said = json.loads(line)
        if "settings" in said:
            settings[said["system"]] = said["settings"]
        else:
            found[said.pop("system"), said.pop("at_once")] = said
    return found


def fdatasync_per_s(folder: Path) -> float:
    """How often the payload of one step can be appended to a plain file and synced."""
    count = 0
    with (folder / "raw").open("wb", buffering=0) as file:
        start = time.perf_counter()
        while time.perf_counter() < start + SECONDS / 2:
            file.write(PAYLOAD + PAYLOAD)
            os.fdatasync(file.fileno())
            count += 1
        return count / (time.perf_counter() - start)


def figures(rounds: Sequence[Figures]) -> dict[str, float]:
    """Every key of AIMS."""

    def speed(system: str, at_once: int) -> float:
        return statistics.median(done[system, at_once]["steps_per_s"] for done in rounds)

    def ratio(system: str, at_once: int) -> float:
        ours = ("journal", at_once)
        return statistics.median(done[ours]["steps_per_s"] / done[system, at_once]["steps_per_s"] for done in rounds)

    return {
        "ratio_dbos_sqlite_64": ratio("dbos", 64),
        "ratio_langgraph_sqlite_64": ratio("langgraph", 64),
        "ratio_fdatasync_1": ratio("write + fdatasync", 1),
        "sqlite_64_steps_per_s": speed("journal", 64),
        "sqlite_1_steps_per_s": speed("journal", 1),
        "ratio_dbos_sqlite_1": ratio("dbos", 1),
        "ratio_langgraph_sqlite_1": ratio("langgraph", 1),
        "fdatasync_per_s": speed("write + fdatasync", 1),
    }


def show(rounds: Sequence[Figures], settings: dict[str, object]) -> None:
    """Medians of the rounds, and what they were measured with."""
    rows: list[tuple[str, ...]] = []
    for system, at_once in rounds[0]:
        found = [done[system, at_once] for done in rounds]
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
