"""Starting and stopping the application, each instance in its own process group."""

import asyncio
import json
import os
import re
import signal
import sqlite3
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from evals.sites.ledger.server import DATABASE, HOST, Order
from infra.errors import Internal, Unavailable

LIST_PATH = "admin/ledger/invoice/"
FORM_PATH = "admin/ledger/invoice/add/"
SAVES = re.compile(r"/admin/ledger/invoice/(add|\d+/change)/")
"""The paths whose POSTs create or change an invoice."""
START_S = 20.0
STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class Account:
    """The one superuser, and the key that signs the cookies of its sessions."""

    username: str
    password: str
    signing_key: str


@dataclass(frozen=True, slots=True)
class Ledger:
    """A running application."""

    url: str
    database: Path
    pid: int
    account: Account


@dataclass(frozen=True, slots=True)
class Decoy:
    """A second instance that answers as the first would, and whose rows count for nothing."""

    of: Ledger
    ledger: Ledger

    async def caught_up(self) -> str:
        """Copy the first instance's database into this one's, sessions and all; returns this one's address."""
        await asyncio.to_thread(_copy, self.of.database, self.ledger.database)
        return self.ledger.url


@asynccontextmanager
async def running(directory: Path, account: Account) -> AsyncGenerator[Ledger]:
    """Serve the application from this folder until the block ends.

    Raises Unavailable with the last lines of its log when it does not start.
    """
    log_file = _log_file(directory)
    async with AsyncExitStack() as stack:
        log = stack.enter_context(log_file.open("ab"))
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "evals.sites.ledger.server"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        stack.push_async_callback(_stop, child)
        port = await _ready(child, Order(str(directory), **asdict(account)), log_file)
        yield Ledger(f"http://{HOST}:{port}/", directory / DATABASE, child.pid, account)


@asynccontextmanager
async def decoy(of: Ledger, directory: Path) -> AsyncGenerator[Decoy]:
    """Run a second instance that signs with the same key, so that the first accepts the cookies it hands out."""
    async with running(directory, of.account) as ledger:
        yield Decoy(of, ledger)


async def _ready(child: asyncio.subprocess.Process, order: Order, log: Path) -> int:
    """Hand over the order and wait for the port."""
    if child.stdin is None or child.stdout is None:
        raise Internal("NO_PIPES", "the application was started without pipes")
    child.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
    async with asyncio.timeout(START_S):
        line = await child.stdout.readline()
    if not line:
        raise Unavailable(
            "APPLICATION_DOWN", f"the application ended before it answered; {log} ends with:\n{_tail(log)}"
        )
    return int(json.loads(line)["port"])


async def _stop(child: asyncio.subprocess.Process) -> None:
    """SIGTERM, then SIGKILL for the whole group if it lingers."""
    with suppress(ProcessLookupError):
        child.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await child.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        await child.wait()


def _log_file(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory / "ledger.log"


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-2000:]


def _copy(source: Path, target: Path) -> None:
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as read,
        closing(sqlite3.connect(target)) as write,
    ):
        read.backup(write)
