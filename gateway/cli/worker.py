"""`skyagent worker`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from execution.worker import WorkerSettings, default_worker_id, run_worker
from gateway.cli.session import perform
from gateway.cli.version import version
from gateway.inventory import Reported
from gateway.workers import executor_of, slots_of
from infra.auth import prepare_worker_token
from infra.clock import Clock, SystemClock
from infra.ids import system_ids
from infra.log import configure_logging
from infra.settings import Settings, load_settings
from infra.telemetry import telemetry

app = typer.Typer(add_completion=False)


@app.command()
def run(
    kind: Annotated[str, typer.Argument(help="Kind of worker: browser or noop.")],
    connect: Annotated[str, typer.Option(help="host:port of the control plane; the local one by default.")] = "",
    worker_id: Annotated[str, typer.Option("--id", help="Stable name; its journal is kept under it.")] = "",
    token_file: Annotated[Path | None, typer.Option(help="File with the token of this very worker.")] = None,
    slots: Annotated[int, typer.Option(min=0, max=1024, help="Steps at once; 0 is what suits the kind.")] = 0,
    crash_at: Annotated[str, typer.Option(hidden=True, help="Fault injection: JOINT or JOINT:N.")] = "",
) -> None:
    """Run a worker in this process, until SIGTERM. It dials the control plane, and needs no open port."""
    settings = load_settings()
    configure_logging(settings.log)
    clock, name = SystemClock(), worker_id or default_worker_id(kind)
    worker = WorkerSettings(
        connect=connect or settings.listen,
        data_dir=settings.data_dir,
        worker_id=name,
        token_file=token_file or prepare_worker_token(settings, clock, system_ids(clock), name),
        max_concurrent_steps=slots or slots_of(kind),
        version=version(),
        crash_at=crash_at,
    )
    perform(_work(kind, settings, worker, clock))


async def _work(kind: str, settings: Settings, worker: WorkerSettings, clock: Clock) -> None:
    ids = system_ids(clock)
    executor = Reported(executor_of(kind, settings, worker, clock), worker.folder / "inventory.json", clock)
    async with telemetry(settings, worker.worker_id, ids) as spans:
        await run_worker(executor, worker, clock=clock, ids=ids, telemetry=spans)
