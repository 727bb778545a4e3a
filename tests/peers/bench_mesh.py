"""What a step costs with every rule on, beside the bare stream that carries it, in the same minute.

A real mesh with a no-op worker runs missions of no-op steps: each is judged by policy, its intent journalled, assigned
over the worker's stream, journalled there, and its result recorded. A step sends one message down and two up, so a bare
echo over 1.5 is the limit of the wire.

Nobody watches while the mesh is measured: one call in a while asks what has ended. What it does while a client follows
each run event by event, and folds them in Python on the same cores, is told beside it.

    python -m tests.peers.bench_mesh [RUNS_AT_ONCE]
"""

import asyncio
import json
import os
import statistics
import sys
import time
import urllib.request
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import grpc

from control.core.run import RunFold, terminal
from evals.end_to_end.skyagent_mesh import free_ports
from gateway.client import Services, connected
from infra.settings import GatewaySettings, Settings
from skyagent.mission.v1 import mission_pb2 as mission
from skyagent.mission.v1 import mission_service_pb2 as missions
from skyagent.run.v1 import run_service_pb2 as runs
from skyagent.run.v1.state_pb2 import RunState
from tests.peers.report import Aim, publish, table

SINGLE_STEPS = 200
STEPS_EACH = 40
CALLS = 200
ECHO_SECONDS = 3.0
WINDOW = 16
ASK_EVERY = 0.2
RUN_DEADLINE = 120.0
MESSAGE = b"x" * 200

AIMS = (
    Aim("ratio_echo", 0.5),
    Aim("step_p50_ms"),
    Aim("step_p99_ms"),
    Aim("steps_per_s_1"),
    Aim("steps_per_s_many"),
    Aim("steps_per_s_watched"),
    Aim("echo_per_s"),
    Aim("rest_over_grpc_ms"),
    Aim("up_ready_s"),
)


async def main(at_once: int) -> None:
    figures: dict[str, float] = {}
    with TemporaryDirectory(dir="build") as folder:
        settings = settings_in(folder)
        async with mesh(settings) as ready_s, connected(settings) as services:
            figures["up_ready_s"] = ready_s
            await watched(services, 20)
            took, figures["steps_per_s_1"] = await single(services)
            figures["step_p50_ms"], figures["step_p99_ms"] = percentile(took, 0.5), percentile(took, 0.99)
            figures["steps_per_s_many"] = await many(services, at_once)
            figures["steps_per_s_watched"] = await many_watched(services, at_once)
            figures["rest_over_grpc_ms"] = await rest_over_grpc(services, settings)
    figures["echo_per_s"] = await echoes()
    figures["ratio_echo"] = figures["steps_per_s_many"] / (figures["echo_per_s"] / 1.5)
    table(
        f"no-op steps, {at_once} runs at once, SQLite synchronous=FULL on both sides",
        ("", "1 run", f"{at_once} runs", "each watched", "bare echo", "echo / 1.5"),
        [
            (
                "steps or round trips per second",
                f"{figures['steps_per_s_1']:,.0f}",
                f"{figures['steps_per_s_many']:,.0f}",
                f"{figures['steps_per_s_watched']:,.0f}",
                f"{figures['echo_per_s']:,.0f}",
                f"{figures['echo_per_s'] / 1.5:,.0f}",
            )
        ],
    )
    publish("mesh", figures, AIMS)


def settings_in(folder: str) -> Settings:
    gateway_port, control_port = free_ports(2)
    gateway = GatewaySettings(port=gateway_port)
    return Settings(data_dir=Path(folder).absolute(), gateway=gateway, listen=f"127.0.0.1:{control_port}")


@asynccontextmanager
async def mesh(settings: Settings) -> AsyncGenerator[float]:
    """`skyagent up` with one no-op worker; yields the seconds until it was ready."""
    env = os.environ | {
        "SKYAGENT_DATA_DIR": str(settings.data_dir),
        "SKYAGENT_GATEWAY__PORT": str(settings.gateway.port),
        "SKYAGENT_LISTEN": settings.listen,
        "SKYAGENT_WORKERS": json.dumps({"noop": 1}),
        "SKYAGENT_LOG__LEVEL": "warning",
    }
    skyagent = Path(sys.executable).with_name("skyagent")
    start = time.perf_counter()
    up = await asyncio.create_subprocess_exec(skyagent, "up", "--detach", env=env, stdout=asyncio.subprocess.DEVNULL)
    if await up.wait():
        raise SystemExit("the mesh did not start")
    try:
        yield time.perf_counter() - start
    finally:
        down = await asyncio.create_subprocess_exec(skyagent, "down", env=env, stdout=asyncio.subprocess.DEVNULL)
        await down.wait()


async def begun(services: Services, steps: int) -> str:
    """A run of so many steps."""
    spec = mission.MissionSpec(goal="do nothing", template="self_test")
    spec.inputs.add(name="steps", value=str(steps))
    request = missions.CreateMissionRequest(spec=spec, request_id=str(uuid.uuid4()))
    return (await services.missions.CreateMission(request)).run_id


async def ended(services: Services, run_ids: Collection[str]) -> list[runs.RunSummary]:
    """What lists show of the runs once all of them are over."""
    request = runs.ListRunsRequest(page_size=2 * len(run_ids))
    async with asyncio.timeout(RUN_DEADLINE):
        while True:
            await asyncio.sleep(ASK_EVERY)
            listed = [run for run in (await services.runs.ListRuns(request)).runs if run.run_id in run_ids]
            if len(listed) == len(run_ids) and all(terminal(run.phase) for run in listed):
                return listed


async def watched(services: Services, steps: int) -> RunState:
    """A run that a client follows from its first event to its last."""
    run_id, folded = await begun(services, steps), RunFold()
    async for answer in services.runs.WatchRun(runs.WatchRunRequest(run_id=run_id)):
        if answer.HasField("event"):
            folded.apply(answer.event)
        if terminal(folded.state.phase):
            break
    return folded.state


async def single(services: Services) -> tuple[list[float], float]:
    """How long one run's steps take, from one intent to the next, and how many there are in a second."""
    run_id = await begun(services, SINGLE_STEPS)
    await ended(services, {run_id})
    state = (await services.runs.GetRun(runs.GetRunRequest(run_id=run_id))).run
    intended = [node.attempts[0].intend_time.ToMilliseconds() for node in state.nodes if node.attempts]
    finish = state.finish_time.ToMilliseconds()
    took = [float(after - before) for before, after in zip(intended, [*intended[1:], finish], strict=True)]
    return took, SINGLE_STEPS / max(0.001, (finish - intended[0]) / 1e3)


async def many(services: Services, at_once: int) -> float:
    """Steps per second of many runs that nobody watches."""
    async with asyncio.TaskGroup() as group:
        started = [group.create_task(begun(services, STEPS_EACH)) for _ in range(at_once)]
    return speed(await ended(services, {task.result() for task in started}))


async def many_watched(services: Services, at_once: int) -> float:
    """Steps per second of as many runs, each followed by a client of its own."""
    async with asyncio.TaskGroup() as group:
        started = [group.create_task(watched(services, STEPS_EACH)) for _ in range(at_once)]
    return speed([task.result() for task in started])


def speed(ended_runs: Sequence[RunState | runs.RunSummary]) -> float:
    """Steps per second from the first start to the last end."""
    first = min(run.create_time.ToMilliseconds() for run in ended_runs)
    last = max(run.finish_time.ToMilliseconds() for run in ended_runs)
    return len(ended_runs) * STEPS_EACH / ((last - first) / 1e3)


async def rest_over_grpc(services: Services, settings: Settings) -> float:
    """What transcoding costs: the median of the same call by REST less that by gRPC, both through Envoy."""
    by_grpc = [await seconds_of(services) for _ in range(CALLS)]
    by_rest = await asyncio.to_thread(rest_calls, settings)
    return (statistics.median(by_rest) - statistics.median(by_grpc)) * 1e3


async def seconds_of(services: Services) -> float:
    begun = time.perf_counter()
    await services.missions.ListTemplates(missions.ListTemplatesRequest())
    return time.perf_counter() - begun


def rest_calls(settings: Settings) -> list[float]:
    token = settings.token_path.read_text().strip()
    url = f"http://{settings.gateway.host}:{settings.gateway.port}/v1/templates"
    took: list[float] = []
    for _ in range(CALLS):
        begun = time.perf_counter()
        request = urllib.request.Request(url, headers={"authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=5) as answer:
            answer.read()
        took.append(time.perf_counter() - begun)
    return took


async def echoes() -> float:
    """Round trips per second of a bare bidirectional stream to a server in another process."""
    port = free_ports(1)[0]
    server = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.peers.echo_server", str(port))
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await channel.channel_ready()
            return await echo_for(channel, ECHO_SECONDS)
    finally:
        server.terminate()
        await server.wait()


async def echo_for(channel: grpc.aio.Channel, seconds: float) -> float:
    room, sent, done = asyncio.Semaphore(WINDOW), 0, 0
    begun = time.perf_counter()

    async def messages() -> AsyncIterator[bytes]:
        nonlocal sent
        while time.perf_counter() - begun < seconds:
            await room.acquire()
            sent += 1
            yield MESSAGE

    answers = cast("AsyncIterator[bytes]", channel.stream_stream("/echo/Echo")(messages()))
    async for _ in answers:
        done += 1
        room.release()
    return done / (time.perf_counter() - begun)


def percentile(took: Sequence[float], share: float) -> float:
    return sorted(took)[int(len(took) * share)]


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 32))
