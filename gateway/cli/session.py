"""How a command runs: to its end, or to one clear error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TypeVar

import grpc
import typer

from gateway.cli.exits import Exit
from gateway.client import explained, no_mesh
from infra.errors import Precondition, SkyError, cause_of
from infra.settings import load_settings

_T = TypeVar("_T")


def perform(
    work: Coroutine[object, object, _T], *, new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> _T:
    """Runs a command to its end; errors of a call become our own, Ctrl-C becomes exit code 130."""
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(work)
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None
    except BaseExceptionGroup as group:
        error = cause_of(group)
        if isinstance(error, SkyError):
            raise error from group
        raise
    except grpc.aio.AioRpcError as error:
        raise explained(error, load_settings()) from error
    except Precondition as error:
        if error.reason == "NO_TOKEN":
            raise no_mesh(load_settings()) from error
        raise
