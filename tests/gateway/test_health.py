"""What a mesh says of itself through its gateway: how it is, and what it counts."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator, Callable
from typing import cast

import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from infra.settings import GatewaySettings, Settings
from tests.gateway.http import Gateway
from tests.gateway.test_whole_mesh import Place

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

STEPS = 3


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> AsyncGenerator[Place]:
    found = Place(
        Settings(
            data_dir=tmp_path_factory.mktemp("health") / "data",
            listen=f"127.0.0.1:{free_port()}",
            gateway=GatewaySettings(port=free_port()),
            workers={"noop": 1},
        )
    )
    try:
        assert (await found.skyagent("up", "--detach")).code == 0
        yield found
    finally:
        await found.skyagent("down")


async def counted(gateway: Gateway) -> dict[str, float]:
    answer = await gateway.own("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain")
    samples = [each for family in text_string_to_metric_families(answer.body.decode()) for each in family.samples]
    return {" ".join((sample.name, *sorted(sample.labels.values()))): sample.value for sample in samples}


async def health(gateway: Gateway) -> tuple[int, dict[str, str]]:
    answer = await gateway.call("/healthz")
    facts = cast("list[dict[str, str]]", json.loads(answer.body)["facts"])
    return answer.status, {fact["name"]: fact["detail"] for fact in facts}


async def test_metrics_say_what_the_journal_says(place: Place) -> None:
    gateway = place.gateway()
    assert (await place.skyagent("run", "--template", "self_test", "--set", f"steps={STEPS}")).code == 0
    found = await counted(gateway)
    (run,) = (await place.skyagent("runs", "ls")).lines
    assert found["skyagent_steps_finished_total idempotent noop ok"] == STEPS
    assert found["skyagent_runs_finished_total succeeded"] == 1
    assert found["skyagent_journal_events_total"] > STEPS
    assert found["skyagent_workers noop"] == 1
    assert found["skyagent_health database"] == 1
    assert found["skyagent_rpc_requests_total OK skyagent.mission.v1.MissionService/CreateMission"] == 1
    assert not [name for name in found if str(run["runId"]) in name]


async def test_metrics_tell_of_runs_that_used_up_what_they_were_granted(place: Place) -> None:
    stopped = await place.skyagent("run", "--template", "self_test", "--set", "steps=3", "--steps", "1")
    assert stopped.code == 5
    found = await counted(place.gateway())
    assert found["skyagent_runs_blocked_total BUDGET_EXHAUSTED"] == 1
    assert found["skyagent_budget_granted_total steps"] == 1


async def test_metrics_need_a_token_and_health_needs_none(place: Place) -> None:
    gateway = place.gateway()
    assert (await gateway.call("/metrics")).status == 401
    status, facts = await health(gateway)
    assert status == 200
    assert set(facts) == {"event-loop", "disk", "database", "orchestrator", "policy-engine", "workers"}
    browser = ("-H", "accept: text/html")
    assert (await gateway.call("/healthz", *browser)).headers["content-type"] == "application/json"


async def test_the_doctor_tells_the_same_facts(place: Place) -> None:
    told = {str(line["subject"]): str(line["health"]) for line in (await place.skyagent("doctor", "--json")).lines}
    assert {told[fact] for fact in ("database", "orchestrator", "policy-engine")} == {"ok"}


async def test_a_control_plane_that_hangs_is_told_by_the_gateway_until_it_goes_on(place: Place) -> None:
    gateway, pid = place.gateway(), (await place.pids())["control-plane"]
    os.kill(pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(30):
            while (told := await health(gateway))[0] != 503:
                pass
    finally:
        os.kill(pid, signal.SIGCONT)
    assert "`skyagent status` tells why" in told[1]["control-plane"]
    async with asyncio.timeout(30):
        while (await health(gateway))[0] != 200:
            pass
