"""The last thing a person sees: the outcome table, what was amiss, where the report lies, and the RESULT line."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from evals.end_to_end.outcome import result_of, shortcomings
from evals.end_to_end.report import lines_of
from evals.end_to_end.stage import Proven


def print_ending(proven: Proven, console: Console) -> None:
    """Print it; the RESULT line stands alone and unstyled, for whoever reads it by program."""
    console.print()
    console.print(_table(proven))
    console.print()
    for sentence in shortcomings(proven.evidence):
        console.print(f"  [bold red]✗[/] {sentence}", highlight=False)
    console.print(f"  report  {proven.evidence.report}", highlight=False, soft_wrap=True)
    console.print(f"  run     {proven.page}", highlight=False, soft_wrap=True)
    print(result_of(proven.evidence).line(), file=console.file, flush=True)


def _table(proven: Proven) -> Table:
    table = Table(title="What the application's own database holds", title_justify="left", box=None, header_style="dim")
    for heading in ("invoice", "supplier"):
        table.add_column(heading, no_wrap=True)
    table.add_column("amount", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("what was done to it")
    for line in lines_of(proven.evidence, proven.rows, ()):
        sign, style = ("✓", "green") if line.good else ("✗", "bold red")
        table.add_row(line.number, line.supplier, line.amount, Text(f"{sign} {line.verdict}", style), line.marks)
    return table
