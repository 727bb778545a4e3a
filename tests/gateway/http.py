"""What curl says of an answer: a client that has nothing to do with us."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, object]:
        """The body as google.rpc.Status."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway under test, and the token of the person at this machine."""

    port: int
    token: str
    worker_token: str
    pid: int
    folder: Path

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def call(self, path: str, *options: str, token: str = "") -> Answer:
        """What `curl` gets for a path."""
        bearer = ("-H", f"authorization: Bearer {token}") if token else ()
        said = await curl("-i", "--path-as-is", *bearer, *options, f"http://{self.address}{path}")
        head, _, body = said.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Answer(int(status.split()[1]), headers, body)

    async def own(self, path: str, *options: str) -> Answer:
        """The same with the token."""
        return await self.call(path, *options, token=self.token)


async def curl(*arguments: str) -> bytes:
    """Runs curl."""
    process = await asyncio.create_subprocess_exec(
        "curl", "-s", "--max-time", "20", *arguments, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    return said


def post(body: str) -> tuple[str, ...]:
    """Options for a POST of JSON."""
    return ("-X", "POST", "-H", "content-type: application/json", "--data-binary", body)
