"""What every bench says at its end: a table for people, and build/bench/NAME.json for whoever compares."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

FOLDER = Path("build/bench")


@dataclass(frozen=True)
class Aim:
    """What a figure should reach: at least `least`, or at most `most`; without either it is only told."""

    figure: str
    least: float | None = None
    most: float | None = None

    @property
    def words(self) -> str:
        if self.least is not None:
            return f">= {self.least:g}"
        return "" if self.most is None else f"<= {self.most:g}"

    def verdict(self, value: float) -> str:
        if not self.words:
            return ""
        missed = (self.least is not None and value < self.least) or (self.most is not None and value > self.most)
        return "MISSED" if missed else "reached"


def machine() -> dict[str, str | int | float]:
    """What the figures depend on."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count() or 0,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_1m": round(os.getloadavg()[0], 2),
    }


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows; the first column is text, the others are numbers."""
    shown = Table(title=title, title_justify="left")
    for n, column in enumerate(columns):
        shown.add_column(column, justify="right" if n else "left")
    for row in rows:
        shown.add_row(*row)
    Console().print(shown)


def publish(name: str, figures: Mapping[str, float], aims: Sequence[Aim]) -> None:
    """Print the figures beside their aims and write build/bench/NAME.json."""
    rows = [(aim.figure, f"{figures[aim.figure]:,.2f}", aim.words, aim.verdict(figures[aim.figure])) for aim in aims]
    table(name, ("figure", "value", "aim", ""), rows)
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), "figures": dict(figures)}, indent=2) + "\n")
    print(path)


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
