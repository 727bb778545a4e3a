"""What frames the proof on a screen: the announcement before it, and after it the outcome table and the RESULT line."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from evals.end_to_end.outcome import result_of, shortcomings
from evals.end_to_end.report import lines_of
from evals.end_to_end.stage import Proven

OPENING = """[bold]The proof mission[/]
{records} invoices go from a file into Django's admin, through its pages, by a real browser, with no model.
Meanwhile browser worker, Chromium, Envoy and control plane are killed, each in the middle of a save,
one save is answered by a lie, and one invoice needs a person's yes.
At the end somebody who took no part opens the application's own database.
"""


def print_opening(records: int, console: Console) -> None:
    """Say what is about to happen."""
    console.print(OPENING.format(records=records), highlight=False, soft_wrap=True)


def print_ending(proven: Proven, console: Console, farewell: str) -> None:
    """Print it; the RESULT line comes last, alone and unstyled, for whoever reads it by program."""
    console.print()
    console.print(_table(proven))
    console.print()
    for sentence in shortcomings(proven.evidence):
        console.print(f"  [bold red]✗[/] {sentence}", highlight=False)
    console.print(f"  report  {proven.evidence.report}", highlight=False, soft_wrap=True)
    console.print(f"  run     {proven.door if farewell else proven.page}", highlight=False, soft_wrap=True)
    if farewell:
        console.print(f"  [dim]{farewell}[/]")
    print(result_of(proven.evidence).line(), file=console.file, flush=True)


def _table(proven: Proven) -> Table:
    table = Table(title="What the application's own database holds", title_justify="left", box=None, header_style="dim")
    table.add_column("invoice", no_wrap=True)
    table.add_column("supplier")
    table.add_column("amount", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("what was done to it")
    for line in lines_of(proven.evidence, proven.rows, ()):
        sign, style = ("✓", "green") if line.good else ("✗", "bold red")
        table.add_row(line.number, line.supplier, line.amount, Text(f"{sign} {line.verdict}", style), line.marks)
    return table
