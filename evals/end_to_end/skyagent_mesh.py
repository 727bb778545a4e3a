"""The real mesh, by what everybody has: the command `skyagent`, and the gateway's REST and SSE."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType

from control.core.run import RunFold
from evals.end_to_end.command import Skyagent, Status
from evals.end_to_end.mesh import Order, Part, Progress, Question
from evals.end_to_end.reading import progress_of
from evals.end_to_end.rest import Gateway, gateway
from evals.sites.ledger import Account
from infra.clock import Clock
from infra.errors import Unavailable
from infra.ids import Ids
from infra.processes import Child, alive, spawn
from infra.settings import environment
from skyagent.run.v1.state_pb2 import RunState

PARTS: Mapping[str, Part] = MappingProxyType(
    {
        "browser-1": Part.WORKER,
        "chromium": Part.CHROMIUM,
        "envoy": Part.ENVOY,
        "control-plane": Part.CONTROL_PLANE,
    }
)
SECRET = "ledger"  # noqa: S105  the name of a secret, not its value
READY_S = 60.0
STOP_S = 20.0
POLL_S = 0.2


class SkyagentMesh:
    """A mesh that `skyagent up` started."""

    def __init__(self, command: Skyagent, client: Gateway, address: str, folder: Path, ids: Ids) -> None:
        self._command = command
        self._client = client
        self._address = address
        self._folder = folder
        self._ids = ids
        self._states: dict[str, RunState] = {}

    async def pids(self) -> Mapping[Part, int]:
        return parts_of(await self._command.status())

    async def start(self, order: Order) -> str:
        return (await self._command.start(order, SECRET)).run_id

    async def progress(self, run_id: str) -> AsyncIterator[Progress]:
        folded = RunFold()
        self._states[run_id] = folded.state
        async for item in self._client.follow(run_id):
            if item.HasField("event"):
                folded.apply(item.event)
                yield progress_of(folded.state)

    async def decide(self, question: Question, *, granted: bool) -> None:
        await self._client.post(
            f"/v1/approvals/{question.approval_id}:decide",
            {
                "decision": "APPROVAL_STATE_GRANTED" if granted else "APPROVAL_STATE_DENIED",
                "action_digest": question.action_digest,
                "request_id": self._ids.uuid(),
                "note": "answered during the proof mission",
            },
        )

    async def artifacts(self, run_id: str, into: Path) -> tuple[Path, ...]:
        made = self._states[run_id].artifacts
        _make(into)
        return tuple([await self._client.fetch(each.blob.digest, into / Path(each.name).name) for each in made])

    def page(self, run_id: str) -> str:
        return f"{self._address}/runs/{run_id}"

    def door(self, run_id: str) -> str:
        return f"{self.page(run_id)}#token={_token(self._folder)}"


def parts_of(status: Status) -> dict[Part, int]:
    """The parts that run, by what `status` calls them."""
    return {PARTS[each.name]: each.pid for each in (*status.parts, *status.owned) if each.pid and each.name in PARTS}


@asynccontextmanager
async def skyagent_mesh(folder: Path, account: Account, clock: Clock, ids: Ids) -> AsyncGenerator[SkyagentMesh]:
    """A mesh of its own, on free ports, with everything in this folder; ended with the block.

    Raises Unavailable with the last lines of its log when it does not get ready.
    """
    _make(folder)
    log = folder / "up.log"
    command = Skyagent(_environment(folder, account))
    child = await spawn((str(command.program), "up"), clock, env=command.env, log_path=log)
    try:
        status = await _ready(command, child, log, clock)
        async with gateway(status.address, _token(folder), clock) as client:
            yield SkyagentMesh(command, client, status.address, folder, ids)
    finally:
        await child.stop(STOP_S)


async def _ready(command: Skyagent, child: Child, log: Path, clock: Clock) -> Status:
    until = clock.monotonic() + READY_S
    while clock.monotonic() < until and alive(child.identity):
        status = await command.status()
        if status.ready:
            return status
        await clock.sleep(POLL_S)
    raise Unavailable("MESH_DOWN", f"the mesh did not get ready; {log} ends with:\n{_tail(log)}")


def _environment(folder: Path, account: Account) -> dict[str, str]:
    gateway_port, control_port = free_ports(2)
    return environment() | {
        "SKYAGENT_DATA_DIR": str(folder.absolute()),
        "SKYAGENT_GATEWAY__PORT": str(gateway_port),
        "SKYAGENT_LISTEN": f"127.0.0.1:{control_port}",
        f"SKYAGENT_SECRET_{SECRET.upper()}": account.password,
    }


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now; all are held until all are found."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


def _token(folder: Path) -> str:
    return (folder / "token").read_text().strip()


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-2000:]


def _make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
