"""`skyagent worker`: ours of some kind, a token for one of somebody else's, and a trial of any."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer._click.core import Context  # pyright: ignore[reportPrivateUsage]  # typer names no public one
from typer.core import TyperGroup

from execution.worker import WorkerSettings, default_worker_id, run_worker
from gateway.cli import conformance
from gateway.cli.output import machine_readable, print_json
from gateway.cli.session import perform
from gateway.cli.version import version
from gateway.inventory import Reported
from gateway.workers import executor_of, slots_of
from infra.auth import prepare_worker_token
from infra.clock import Clock, SystemClock
from infra.errors import InvalidArgument, Violation
from infra.ids import system_ids
from infra.log import configure_logging
from infra.settings import WORKER_ID, Settings, load_settings
from infra.telemetry import telemetry


class Kinds(TyperGroup):
    """`skyagent worker KIND` is `skyagent worker run KIND`."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, "--help"}:
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=Kinds, add_completion=False, no_args_is_help=True, help="Run a worker, or try one that you have written."
)
app.command("conformance", context_settings={"ignore_unknown_options": True})(conformance.run)


@app.command("run")
def run(
    kind: Annotated[str, typer.Argument(help="Kind of worker: browser or noop.")],
    connect: Annotated[str, typer.Option(help="host:port of the control plane; the local one by default.")] = "",
    worker_id: Annotated[str, typer.Option("--id", help="Stable name; its journal is kept under it.")] = "",
    token_file: Annotated[Path | None, typer.Option(help="File with the token of this very worker.")] = None,
    slots: Annotated[int, typer.Option(min=0, max=1024, help="Steps at once; 0 is what suits the kind.")] = 0,
    crash_at: Annotated[str, typer.Option(hidden=True, help="Fault injection: JOINT or JOINT:N.")] = "",
) -> None:
    """Run a worker in this process, until SIGTERM; `run` can be left out. It dials, and needs no open port."""
    settings = load_settings()
    place = settings.worker
    configure_logging(settings.log)
    clock, name = SystemClock(), worker_id or place.id or default_worker_id(kind)
    known = token_file or place.token_file
    worker = WorkerSettings(
        connect=connect or place.connect or settings.listen,
        data_dir=settings.data_dir,
        worker_id=name,
        token_file=known or prepare_worker_token(settings, clock, system_ids(clock), name),
        max_concurrent_steps=slots or slots_of(kind),
        version=version(),
        crash_at=crash_at,
    )
    perform(_work(kind, settings, worker, clock))


@app.command("token")
def token(
    name: Annotated[str, typer.Argument(help="Stable name of the worker; it can speak for no other.")],
    json_lines: Annotated[bool, typer.Option("--json", help="A JSON line even on a terminal.")] = False,  # noqa: FBT002
) -> None:
    """Make the token of a worker, on the machine of the control plane, and print the file that holds it."""
    if not WORKER_ID.fullmatch(name):
        told = f"{name!r} is no name of a worker: lower-case letters, digits and -, at most 63, no - in front"
        raise InvalidArgument(Violation("NAME", told))
    settings, clock = load_settings(), SystemClock()
    path = prepare_worker_token(settings, clock, system_ids(clock), name)
    if machine_readable(json_lines=json_lines):
        print_json({"workerId": name, "tokenFile": str(path), "connect": settings.listen})
    else:
        print(path)


async def _work(kind: str, settings: Settings, worker: WorkerSettings, clock: Clock) -> None:
    ids = system_ids(clock)
    executor = Reported(executor_of(kind, settings, worker, clock), worker.folder / "inventory.json", clock)
    async with telemetry(settings, worker.worker_id, ids) as spans:
        await run_worker(executor, worker, clock=clock, ids=ids, telemetry=spans)
