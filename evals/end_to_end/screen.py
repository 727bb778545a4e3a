"""Drawing the scene: a live table on a terminal, plain lines anywhere else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from evals.end_to_end.mesh import Question, Stage
from evals.end_to_end.scene import Row, Scene
from infra.clock import Clock

REDRAWS_PER_S = 8
WIDE = 100
"""Columns of a terminal from which on the supplier has room."""
HEADER_LINES = 1
COLOURS = {
    Stage.WAITING: "dim",
    Stage.ENTERING: "blue",
    Stage.CHECKING: "magenta",
    Stage.ASKING: "bold cyan",
    Stage.UNCERTAIN: "bold yellow",
    Stage.DONE: "green",
    Stage.FAILED: "bold red",
    Stage.DENIED: "red",
}
SIGNS = {Stage.DONE: "✓", Stage.FAILED: "✗", Stage.DENIED: "✗", Stage.ASKING: "?", Stage.UNCERTAIN: "?"}


class Screen(Protocol):
    """Where the scene is shown."""

    def refresh(self) -> None:
        """Show what has changed."""
        ...


class Frame:
    """The scene as one block, drawn anew each time it is printed."""

    def __init__(self, scene: Scene, clock: Clock) -> None:
        self._scene = scene
        self._clock = clock

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # What lies below the last line of the terminal is never seen: the question comes first, the table gives way.
        question = self._scene.question
        above = (self._headline(),) if question is None else (self._question(question), self._headline())
        processes = self._processes()
        taken = sum(len(console.render_lines(block, options)) for block in (*above, processes))
        records = self._records(options.size.height - taken - HEADER_LINES, wide=options.max_width >= WIDE)
        yield from (*above, *records, processes)

    def _headline(self) -> Text:
        done = sum(row.record.stage is Stage.DONE for row in self._scene.rows.values())
        elapsed = self._clock.monotonic() - self._scene.began
        return Text.from_markup(
            f"[bold]{done} of {len(self._scene.rows)} records verified[/] in {self._scene.site}  "
            f"[dim]{elapsed:5.1f} s · run {self._scene.phase} · {self._scene.events} events · {self._scene.page}[/]"
        )

    def _records(self, room: int, *, wide: bool) -> tuple[RenderableType, ...]:
        """Every record, or in fewer lines those that are not verified and how many are left out."""
        rows = list(self._scene.rows.values())
        if len(rows) <= room:
            return (self._table(rows, wide=wide),)
        unverified = [row for row in rows if row.record.stage is not Stage.DONE]
        shown = unverified[: max(room - 1, 0)]
        rest = f"{len(rows) - len(unverified)} verified"
        if hidden := len(unverified) - len(shown):
            rest += f", {hidden} more"
        return self._table(shown, wide=wide), Text(rest, style="dim")

    def _table(self, rows: Sequence[Row], *, wide: bool) -> Table:
        table = Table(box=None, pad_edge=False, expand=False, header_style="dim")
        table.add_column("invoice", no_wrap=True)
        if wide:
            table.add_column("supplier", max_width=32)
        table.add_column("amount", justify="right", no_wrap=True)
        table.add_column("now", no_wrap=True, min_width=11)
        table.add_column("what happened to it", min_width=24)
        for row in rows:
            supplier = (one_line(row.invoice.supplier),) if wide else ()
            amount = f"{row.invoice.amount:,} {row.invoice.currency}"
            table.add_row(row.invoice.number, *supplier, amount, stage(row), happened(row))
        return table

    def _processes(self) -> Text:
        line = Text()
        for part, process in self._scene.processes.items():
            style = "bold white on red" if process.killed else "green" if process.pid else "dim"
            line.append(f" {part} {'†' if process.killed else ''}{process.pid or '…'} ", style)
            line.append("  ")
        return line

    def _question(self, question: Question) -> Panel:
        body = Group(Text(question.summary, style="bold"), *(Text(reason) for reason in question.reasons))
        # The keys stand in the first line, so that a question of any length cannot push them off the screen.
        return Panel(body, title="A person must answer:  y = yes   N = no", border_style="cyan")


class LiveScreen:
    """For a terminal: news scroll by above, the frame stays below."""

    def __init__(self, scene: Scene, live: Live) -> None:
        self._scene = scene
        self._live = live

    def refresh(self) -> None:
        for sentence in self._scene.fresh_news():
            self._live.console.print(f"  {sentence}", highlight=False)
        self._live.refresh()


class PlainScreen:
    """For a pipe or a log: one line for each piece of news and each change of a record."""

    def __init__(self, scene: Scene, console: Console, clock: Clock) -> None:
        self._scene = scene
        self._console = console
        self._clock = clock
        self._shown: dict[str, Stage] = {}

    def refresh(self) -> None:
        for sentence in self._scene.fresh_news():
            self._line(sentence)
        for number, row in self._scene.rows.items():
            if self._shown.get(number, Stage.WAITING) is not row.record.stage:
                self._shown[number] = row.record.stage
                self._line(f"{number}  {row.record.stage}")

    def _line(self, text: str) -> None:
        elapsed = self._clock.monotonic() - self._scene.began
        self._console.print(f"[dim]{elapsed:6.1f} s[/]  {text}", highlight=False, soft_wrap=True)


def one_line(text: str, style: str = "") -> Text:
    """A text that is cut where its column ends. Columns that are no_wrap would all shrink alike, the numbers too."""
    return Text(" ".join(text.split()), style=style, no_wrap=True, overflow="ellipsis")


def happened(row: Row) -> Text:
    """What was done to the record, else what the mesh says of it."""
    return one_line(" · ".join(row.marks) or row.record.detail, "yellow" if row.marks else "dim")


def stage(row: Row) -> Text:
    """The stage in its colour, with a sign for those who see none."""
    now = row.record.stage
    return Text(f"{SIGNS.get(now, '·')} {now}", style=COLOURS[now])


@asynccontextmanager
async def showing(scene: Scene, console: Console, clock: Clock) -> AsyncGenerator[Screen]:
    """A screen for as long as the block lasts; on a terminal the frame then makes room for what is printed next."""
    if not console.is_terminal:
        screen = PlainScreen(scene, console, clock)
        yield screen
        screen.refresh()
        return
    with Live(Frame(scene, clock), console=console, refresh_per_second=REDRAWS_PER_S, transient=True) as live:
        screen = LiveScreen(scene, live)
        yield screen
        screen.refresh()
