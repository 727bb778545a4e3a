"""`skyagent worker conformance`: tries the worker protocol on any worker, and says what it saw."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from gateway.cli.asking import press_enter, somebody_is_there
from gateway.cli.exits import Exit
from gateway.cli.output import console, machine_readable, plain, print_json
from gateway.cli.session import perform
from gateway.conformance.bench import Bench
from gateway.conformance.operator import Place
from gateway.conformance.report import as_html, as_json, result_json, with_evidence
from gateway.conformance.trial import Asked, Progress, trial
from gateway.conformance.verdicts import Check, Report, Result, Verdict
from infra.clock import SystemClock
from infra.errors import InvalidArgument, Violation
from infra.ids import system_ids
from infra.settings import split_address

COLOURS = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.SKIP: "yellow"}
_SHOWN_LINES = 12


def run(
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ADDRESS | -- COMMAND...",
            help="What starts your worker, with {address}, {worker_id}, {token_file}, {data_dir} and {witness} filled "
            "in; or an address to listen on, where you start the worker.",
        ),
    ] = None,
    listen: Annotated[str, typer.Option(help="Where the worker shall dial; port 0 takes a free one.")] = "127.0.0.1:0",
    token_file: Annotated[Path | None, typer.Option(help="The token that the worker must bring; one is made.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only this check; can be given again.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write everything seen to FILE.html or FILE.json.")] = None,
    json_lines: Annotated[bool, typer.Option("--json", help="JSON lines even on a terminal.")] = False,  # noqa: FBT002
) -> None:
    """Try the worker protocol on a worker, in any language. docs/workers/protocol.md explains each check.

    The command is started, killed and started again as the checks need it, with SKYAGENT_WORKER__CONNECT, __ID,
    __TOKEN_FILE and __WITNESS and SKYAGENT_DATA_DIR in its environment. Exit codes: 0 it conforms, 1 it does not,
    3 nothing failed but something could not be tried.
    """
    _require_known(report)
    address, words = _split(command or [], listen)
    screen = _Lines() if machine_readable(json_lines=json_lines) else _Terminal()
    ask = screen.ask if isinstance(screen, _Terminal) and somebody_is_there() else None
    asked = Asked(listen=address, command=words, token=_token(token_file), only=only or (), ask=ask)
    done = perform(_try(asked, screen))
    screen.total(done)
    if report is not None:
        report.write_text(as_html(done) if report.suffix == ".html" else as_json(done))
    raise typer.Exit(_exit(done))


async def _try(asked: Asked, progress: Progress) -> Report:
    clock = SystemClock()
    with tempfile.TemporaryDirectory(prefix="skyagent-conformance-") as folder:
        return await trial(asked, Path(folder), progress, clock=clock, ids=system_ids(clock))


def _exit(done: Report) -> Exit:
    if done.failed:
        return Exit.FAILED
    return Exit.SUCCEEDED if done.conforms else Exit.WAITS_FOR_PERSON


def _split(words: list[str], listen: str) -> tuple[str, list[str]]:
    """Where to listen, and the command; a lone address means that there is none."""
    if len(words) == 1 and ":" in words[0]:
        listen, words = words[0], []
    try:
        split_address(listen)
    except ValueError as bad:
        raise InvalidArgument(Violation("--listen", str(bad))) from bad
    return listen, words


def _token(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text().strip()
    except OSError as bad:
        raise InvalidArgument(Violation("--token-file", f"{path} cannot be read: {bad.strerror}")) from bad


def _require_known(report: Path | None) -> None:
    """Said before the trial and not after it."""
    if report is None:
        return
    if report.suffix not in {".html", ".json"}:
        raise InvalidArgument(Violation("--report", f"{report} must end in .html or .json"))
    if not report.absolute().parent.is_dir():
        raise InvalidArgument(Violation("--report", f"there is no folder {report.absolute().parent}"))


class _Lines:
    """JSON lines: where to dial, each check as it ends, and the sum."""

    def ready(self, place: Place) -> None:
        print_json({"ready": {"address": place.connect, "witness": place.witness}})

    def begins(self, check: Check[Bench], number: int, of: int) -> None:
        pass

    def ended(self, result: Result) -> None:
        print_json({"check": with_evidence(result) if result.verdict is Verdict.FAIL else result_json(result)})

    def total(self, done: Report) -> None:
        print_json({"total": {"worker": done.worker, "conforms": done.conforms, **_counts(done)}})


class _Terminal:
    """A line that says what is being tried, and a table at the end with what was seen of each failure."""

    def __init__(self) -> None:
        self._status = console.status("waiting for the worker")

    def ready(self, place: Place) -> None:
        console.print(f"listening on [bold]{escape(place.connect)}[/bold]; the witness is {escape(place.witness)}")
        if not place.worker_id:
            console.print(
                "start your worker now, with\n"
                f"  SKYAGENT_WORKER__CONNECT={escape(place.connect)} SKYAGENT_WORKER__WITNESS={escape(place.witness)}"
            )
        self._status.start()

    async def ask(self, what: str) -> None:
        """The terminal belongs to the question until it is answered."""
        self._status.stop()
        await press_enter(what)
        self._status.start()

    def begins(self, check: Check[Bench], number: int, of: int) -> None:
        self._status.update(f"{number}/{of} {check.name}")

    def ended(self, result: Result) -> None:
        if result.verdict is Verdict.FAIL:
            console.print(f"[red]FAIL[/red] {result.name}: ", plain(result.reason), sep="")

    def total(self, done: Report) -> None:
        self._status.stop()
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in ("check", "", "seconds", "rule, or what was seen instead"):
            table.add_column(column, overflow="fold", no_wrap=column != "rule, or what was seen instead")
        for result in done.results:
            colour = COLOURS[result.verdict] if result.required else "dim"
            told = plain(result.reason or result.rule)
            table.add_row(result.name, f"[{colour}]{result.verdict}[/{colour}]", f"{result.seconds:.1f}", told)
        console.print(table)
        for result in done.failed:
            console.print(f"\n[red]{result.name}[/red]  ", plain(result.rule, "dim"), sep="")
            for line in list(result.evidence)[-_SHOWN_LINES:]:
                console.print(plain(f"  {line.at:8.3f}  {line.text}", "dim"))
        counts = _counts(done)
        verdict = "[green]conforms[/green]" if done.conforms else "[red]does not conform[/red]"
        if not done.conforms and not done.failed:
            verdict = "[yellow]was not tried in everything[/yellow]"
        console.print(f"\n{verdict}: {counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")


def _counts(done: Report) -> dict[str, int]:
    verdicts = [result.verdict for result in done.results]
    return {
        "passed": verdicts.count(Verdict.PASS),
        "failed": verdicts.count(Verdict.FAIL),
        "skipped": verdicts.count(Verdict.SKIP),
    }
