"""The command `skyagent`, run as a person would run it, and what it prints as JSON."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from evals.end_to_end.mesh import Order
from infra.errors import Internal


class _Process(BaseModel):
    name: str
    pid: int


class Status(BaseModel):
    """What `skyagent status --json` prints. `parts` are the supervisor's children, `owned` what a worker started."""

    running: bool
    ready: bool = False
    address: str = ""
    parts: tuple[_Process, ...] = ()
    owned: tuple[_Process, ...] = ()


class Started(BaseModel):
    """What `skyagent run --no-watch --json` prints."""

    model_config = ConfigDict(alias_generator=to_camel)

    mission_id: str
    run_id: str


async def ended(child: asyncio.subprocess.Process) -> None:
    """Ends a process that nobody waits for any more, also when it has just ended by itself."""
    with suppress(ProcessLookupError):
        child.kill()
    await child.wait()


@dataclass(frozen=True, slots=True)
class Skyagent:
    """The command, with the environment of one mesh."""

    env: Mapping[str, str]

    @property
    def program(self) -> Path:
        """The one that stands beside the interpreter that runs now."""
        return Path(sys.executable).with_name("skyagent")

    async def status(self) -> Status:
        """How the mesh stands."""
        return Status.model_validate_json(await self._output("status", "--json"))

    async def start(self, order: Order, secret: str) -> Started:
        """Start the mission; raises Internal with the command's own words when it is refused."""
        return Started.model_validate_json(
            await self._output(
                *("run", "--template", "data_entry", "--runtime", "browser", "--no-watch", "--json"),
                *("--input", f"rows={order.rows}", "--site", order.site),
                *("--set", f"form={order.form_path}", "--set", f"list={order.list_path}"),
                *("--set", f"username={order.username}", "--set", f"password={{{{secret:{secret}}}}}"),
                *("--approve-above", order.approve_above),
            )
        )

    async def _output(self, *arguments: str) -> bytes:
        child = await asyncio.create_subprocess_exec(
            *(self.program, *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(self.env),
        )
        try:
            output, errors = await child.communicate()
        except asyncio.CancelledError:
            await ended(child)
            raise
        if not output:
            raise Internal("COMMAND_FAILED", f"skyagent {arguments[0]}: {errors.decode().strip()}")
        return output
