"""`python -m evals.end_to_end.proof`: the proof mission, live.

Exit codes: 0 the proof holds · 1 it does not · 2 wrong usage · 69 the mesh is not available · 130 interrupted.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from evals import records
from evals.end_to_end.ending import print_ending, print_opening
from evals.end_to_end.outcome import shortcomings
from evals.end_to_end.person import any_key, person_for
from evals.end_to_end.skyagent_mesh import skyagent_mesh
from evals.end_to_end.stage import Cast, OpenMesh, performed
from evals.sites import ledger
from infra.clock import Clock, SystemClock
from infra.errors import InvalidArgument, SkyError, Unavailable
from infra.ids import system_ids

FOLDER = Path("build/proof")
LOG_WIDTH = 160
STAY_S = 120.0
HOLDS, FAILS, USAGE, UNAVAILABLE, INTERRUPTED = 0, 1, 2, 69, 130


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for on the command line. `stay_s` is how long the mesh stays up for whoever watches."""

    approve: str
    seed: int | None
    folder: Path | None
    stay_s: float


def cast_for(options: Options, open_mesh: OpenMesh, console: Console, clock: Clock, keyboard: int) -> Cast:
    """Everything that takes part; raises InvalidArgument when nobody could answer the question."""
    ids = system_ids(clock)
    stamp = datetime.fromtimestamp(clock.now_ms() / 1000, UTC).strftime("%Y%m%d-%H%M%S")
    return Cast(
        folder=options.folder or FOLDER / stamp,
        seed=int(ids.secret()[:8], 16) if options.seed is None else options.seed,
        account=ledger.Account("clerk", password=ids.secret()[:24], signing_key=ids.secret()),
        person=person_for(options.approve, keyboard),
        open_mesh=open_mesh,
        console=console,
        clock=clock,
    )


async def perform(cast: Cast, keyboard: int, stay_s: float) -> int:
    """Perform, print the ending, and at a terminal leave the mesh up for a while; returns the exit code."""
    me = asyncio.current_task()
    if me is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    print_opening(records.COUNT, cast.console)
    async with performed(cast) as proven:
        stays = cast.console.is_terminal and os.isatty(keyboard)
        farewell = f"the mesh stays up for {stay_s:.0f} s more; press any key to stop it now" if stays else ""
        print_ending(proven, cast.console, farewell)
        if stays:
            await any_key(keyboard, within_s=stay_s)
    return FAILS if shortcomings(proven.evidence) else HOLDS


def main(
    approve: Annotated[str, typer.Option(help="yes or no: the answer where there is no terminal to ask on")] = "",
    seed: Annotated[int | None, typer.Option(help="make the same records as an earlier proof")] = None,
    folder: Annotated[Path | None, typer.Option(help=f"where everything goes; {FOLDER}/TIME if not given")] = None,
    stay: Annotated[float, typer.Option(help="seconds that the mesh stays up at the end, at a terminal")] = STAY_S,
) -> None:
    """Enter records through a real application, under fire, and have them counted by someone who took no part."""
    clock = SystemClock()
    ids = system_ids(clock)
    raise typer.Exit(
        run(Options(approve, seed, folder, stay), lambda into, account: skyagent_mesh(into, account, clock, ids))
    )


def run(options: Options, open_mesh: OpenMesh) -> int:
    """The whole program but for the command line; returns the exit code."""
    # A log has no width of its own; 80 columns would cut the tables.
    console, keyboard = Console(width=None if sys.stdout.isatty() else LOG_WIDTH), sys.stdin.fileno()
    try:
        return asyncio.run(
            perform(cast_for(options, open_mesh, console, SystemClock(), keyboard), keyboard, options.stay_s)
        )
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED
    except SkyError as error:
        console.print(f"[bold red]error[/] {error}", highlight=False)
        return USAGE if isinstance(error, InvalidArgument) else UNAVAILABLE if isinstance(error, Unavailable) else FAILS


if __name__ == "__main__":
    typer.run(main)
