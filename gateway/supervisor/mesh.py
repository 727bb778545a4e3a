"""A whole mesh, from its lock to its last process."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

from gateway.envoy.process import edge_of, validate, write
from gateway.supervisor import ports
from gateway.supervisor.board import STATUS_FILE, Board, Part
from gateway.supervisor.keeper import Keeper, Program, Surroundings
from gateway.supervisor.leftovers import end_leftovers, marker_of
from gateway.supervisor.lock import up_lock
from gateway.supervisor.programs import CONTROL_PLANE, ENVOY, child_environment, envoy_configuration
from infra.auth import prepare_identity
from infra.clock import Clock
from infra.disk import explained
from infra.errors import SkyError
from infra.ids import Ids
from infra.settings import Settings, split_address


@asynccontextmanager
async def running_mesh(
    settings: Settings, programs: tuple[Program, ...], *, clock: Clock, ids: Ids
) -> AsyncGenerator[Board]:
    """A mesh that is being kept alive for the block, ready or not yet; it has ended when the block has.

    Raises Precondition: ALREADY_UP, PORT_TAKEN, CHILD_FAILED, DATA_UNWRITABLE; Exhausted DISK_FULL; Internal
    ENVOY_CONFIGURATION.
    """
    with up_lock(settings.up_lock_path):
        await end_leftovers(settings, clock)
        _require_ports(settings)
        prepare_identity(settings, clock, ids)
        around = Surroundings(settings.run_dir, child_environment(settings), marker_of(settings))
        with explained(settings.run_dir):
            write(edge_of(settings), envoy_configuration(settings))
            around.prepare()
        board = _board(settings, programs, clock)
        keepers = {program.name: Keeper(program, around, board, clock) for program in programs}
        try:
            with _first_error():
                async with asyncio.TaskGroup() as group:
                    kept = [group.create_task(_keep(settings, name, keeper)) for name, keeper in keepers.items()]
                    try:
                        yield board
                    finally:
                        await _stop(keepers)
                        for task in kept:
                            task.cancel()
        finally:
            await end_leftovers(settings, clock)
            board.remove()


async def _keep(settings: Settings, name: str, keeper: Keeper) -> None:
    if name == ENVOY:
        await validate(envoy_configuration(settings))
    await keeper.keep()


@contextmanager
def told_to_stop() -> Generator[asyncio.Future[signal.Signals]]:
    """SIGTERM and SIGINT, as a future that holds the first one."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[signal.Signals] = loop.create_future()

    def note(received: signal.Signals) -> None:
        if not told.done():
            told.set_result(received)

    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, note, each)
    try:
        yield told
    finally:
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(each)


def _require_ports(settings: Settings) -> None:
    ports.require_free(settings.gateway.host, settings.gateway.port, "SKYAGENT_GATEWAY__PORT")
    ports.require_free(*split_address(settings.listen), "SKYAGENT_LISTEN")


def _board(settings: Settings, programs: tuple[Program, ...], clock: Clock) -> Board:
    logs = settings.run_dir / "log"
    parts = tuple(Part(program.name, port=program.port, log=str(logs / f"{program.name}.log")) for program in programs)
    address = f"http://{settings.gateway.host}:{settings.gateway.port}"
    return Board(settings.run_dir / STATUS_FILE, address, parts, clock)


async def _stop(keepers: dict[str, Keeper]) -> None:
    """Workers first, so that what they finish is still recorded; the gateway last, so that people still see it."""
    servers = [keeper for name, keeper in keepers.items() if name in (CONTROL_PLANE, ENVOY)]
    for wave in ([keeper for keeper in keepers.values() if keeper not in servers], servers):
        async with asyncio.TaskGroup() as group:
            for keeper in wave:
                group.create_task(keeper.stop())


@contextmanager
def _first_error() -> Generator[None]:
    """One clear error in place of a group: whatever failed first made the others end."""
    try:
        yield
    except BaseExceptionGroup as failed:
        known, _ = failed.split(SkyError)
        while known:
            first = known.exceptions[0]
            if isinstance(first, SkyError):
                raise first from None
            known = first
        raise
