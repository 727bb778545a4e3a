"""How fast steps are recorded durably on either database, beside DBOS, LangGraph, Temporal and the disk itself.

All of it in the same minutes: rounds follow each other, every system is measured between two measurements of ours on
the same kind of database, and every ratio is the median of the rounds' own ratios, because a shared disk changes its
speed from minute to minute. Temporal's dev server takes tens of milliseconds for a step, so it is tried with one run.

    python -m tests.peers.bench_journal [ROUNDS]
"""

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.peers.long_run import seconds_to_open
from tests.peers.measure import PAYLOAD
from tests.peers.report import Aim, machine, publish, table
from tests.peers.takeover import handovers
from tests.servers.postgres import Postgres, temporary_postgres

HERE = Path(__file__).parent
PEERS = Path("build/peers")
SECONDS = 2.0
HANDOVERS = 10

AIMS = (
    Aim("ratio_dbos_sqlite_64", least=40),
    Aim("ratio_dbos_pg_64", least=25),
    Aim("ratio_langgraph_sqlite_64", least=30),
    Aim("ratio_langgraph_pg_64", least=40),
    Aim("ratio_temporal_dev"),
    Aim("ratio_fdatasync_1", least=0.4),
    Aim("sqlite_64_steps_per_s", least=7000),
    Aim("pg_64_steps_per_s", least=6000),
    Aim("sqlite_1_steps_per_s"),
    Aim("pg_1_steps_per_s"),
    Aim("ratio_dbos_sqlite_1"),
    Aim("ratio_langgraph_sqlite_1"),
    Aim("fdatasync_per_s"),
    Aim("cpu_us_per_step", most=130),
    Aim("bytes_per_step"),
    Aim("bytes_per_step_pg"),
    Aim("takeover_p95_s", most=3),
    Aim("drain_s", most=0.5),
    Aim("open_100k_ms", most=200),
)

Key = tuple[str, int]
"""A system, and how many runs it had at once."""

Found = dict[Key, dict[str, float]]

OURS, OURS_PG, RAW = "journal", "journal-pg", "write + fdatasync"


@dataclass(frozen=True)
class Round:
    """What was measured, and how many times faster we were than each system just before and just after it."""

    found: Found = field(default_factory=dict[Key, dict[str, float]])
    ratios: dict[Key, float] = field(default_factory=dict[Key, float])


@dataclass
class Bench:
    """Where the systems run, and what they say of themselves."""

    folder: Path
    postgres: Postgres
    settings: dict[str, object] = field(default_factory=dict[str, object])
    bytes_per_step: dict[str, float] = field(default_factory=dict[str, float])
    databases: int = 0

    def round(self) -> Round:
        """Every system once, and ours before and after each."""
        with TemporaryDirectory(dir=self.folder) as name:
            folder, done = Path(name), Round()
            on_sqlite = (
                lambda: {(RAW, 1): fdatasync(folder)},
                lambda: self._peer("dbos", str(folder), 1, 64),
                lambda: self._peer("langgraph", str(folder), 1, 64),
                lambda: self._peer("temporal", str(folder), 1),
            )
            self._beside(done, OURS, lambda: self._ours(str(folder)), on_sqlite)
        on_postgres = (
            lambda: self._peer("dbos", self._database(), 1, 64),
            lambda: self._peer("langgraph", self._database(), 1, 64),
        )
        self._beside(done, OURS_PG, lambda: self._ours(self._database()), on_postgres)
        return done

    def _beside(self, done: Round, name: str, ours: Callable[[], Found], others: Sequence[Callable[[], Found]]) -> None:
        before = ours()
        done.found.update(before)
        for measure_other in others:
            other, after = measure_other(), ours()
            done.found.update(other)
            for (system, at_once), said in other.items():
                around = [each[name, at_once]["steps_per_s"] for each in (before, after)]
                done.ratios[system, at_once] = statistics.mean(around) / said["steps_per_s"]
            before = after

    def _ours(self, where: str) -> Found:
        return self._steps([sys.executable, "-m", "tests.peers.journal_steps"], where, (1, 64))

    def _peer(self, name: str, where: str, *at_once: int) -> Found:
        return self._steps([peers_python(), str(HERE / f"{name}_steps.py")], where, at_once)

    def _steps(self, command: Sequence[str], where: str, at_once: Sequence[int]) -> Found:
        """Run one system in a process of its own and read what it prints."""
        arguments = [*command, where, str(SECONDS), *map(str, at_once)]
        printed = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True).stdout
        found: Found = {}
        for line in printed.splitlines():
            said = json.loads(line)
            system = said.pop("system")
            if "settings" in said:
                self.settings[system] = said["settings"]
            elif "bytes_per_step" in said:
                self.bytes_per_step[system] = said["bytes_per_step"]
            else:
                found[system, said.pop("at_once")] = said
        return found

    def _database(self) -> str:
        """A new one: nobody is slowed by what others left."""
        self.databases += 1
        return self.postgres.database(f"bench_{self.databases}")


def main(rounds: int) -> None:
    peers_python()
    build = Path("build").absolute()
    with TemporaryDirectory(dir=build) as folder, temporary_postgres(Path(folder)) as postgres:
        bench, done = Bench(Path(folder), postgres), list[Round]()
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", flush=True)
            done.append(bench.round())
        show(done, bench.settings)
        print(f"{HANDOVERS} takeovers and {HANDOVERS} hand-overs", flush=True)
        held = ownership(Path(folder), bench)
        opened, _ = seconds_to_open(Path(folder))
        publish("journal", figures(done, bench) | held | {"open_100k_ms": opened * 1e3}, AIMS)


def ownership(folder: Path, bench: Bench) -> dict[str, float]:
    """Seconds without an owner: after kill -9 (p95), and after SIGTERM (the median)."""

    def changes(how: signal.Signals) -> list[float]:
        home = folder / how.name
        home.mkdir()
        address = bench.postgres.database(f"handover_{how.name.lower()}")
        return asyncio.run(handovers(home, address, HANDOVERS, how))

    killed, drained = changes(signal.SIGKILL), changes(signal.SIGTERM)
    return {"takeover_p95_s": killed[int(len(killed) * 0.95)], "drain_s": statistics.median(drained)}


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


def figures(rounds: Sequence[Round], bench: Bench) -> dict[str, float]:
    """Every key of AIMS that is about speed and size."""

    def median(system: str, at_once: int, what: str = "steps_per_s") -> float:
        return statistics.median(done.found[system, at_once][what] for done in rounds)

    def ratio(system: str, at_once: int) -> float:
        return statistics.median(done.ratios[system, at_once] for done in rounds)

    return {
        "ratio_dbos_sqlite_64": ratio("dbos", 64),
        "ratio_dbos_pg_64": ratio("dbos-pg", 64),
        "ratio_langgraph_sqlite_64": ratio("langgraph", 64),
        "ratio_langgraph_pg_64": ratio("langgraph-pg", 64),
        "ratio_temporal_dev": ratio("temporal-dev", 1),
        "ratio_fdatasync_1": ratio(RAW, 1),
        "sqlite_64_steps_per_s": median(OURS, 64),
        "pg_64_steps_per_s": median(OURS_PG, 64),
        "sqlite_1_steps_per_s": median(OURS, 1),
        "pg_1_steps_per_s": median(OURS_PG, 1),
        "ratio_dbos_sqlite_1": ratio("dbos", 1),
        "ratio_langgraph_sqlite_1": ratio("langgraph", 1),
        "fdatasync_per_s": median(RAW, 1),
        "cpu_us_per_step": max(median(OURS, 64, "cpu_us"), median(OURS_PG, 64, "cpu_us")),
        "bytes_per_step": bench.bytes_per_step[OURS],
        "bytes_per_step_pg": bench.bytes_per_step[OURS_PG],
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
