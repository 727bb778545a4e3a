"""REST through a real Envoy, called by a real curl."""

from __future__ import annotations

import json
from typing import cast

import pytest

from tests.gateway.http import Gateway, post
from tests.gateway.plane import MISSION, RUN

pytestmark = pytest.mark.asyncio(loop_scope="module")

SPEC = '{"spec": {"goal": "enter the invoices"}}'


@pytest.mark.parametrize("path", ["/v1/missions", "/missions"])
async def test_a_mission_is_created_on_both_paths(edge: Gateway, path: str) -> None:
    answer = await edge.own(path, *post(SPEC))
    created = json.loads(answer.body)
    assert answer.status == 200
    assert created["runId"] == RUN
    assert created["mission"]["spec"]["goal"] == "enter the invoices"


async def test_the_services_know_who_calls(edge: Gateway) -> None:
    created = json.loads((await edge.own("/v1/missions", *post(SPEC))).body)
    assert created["mission"]["creator"] == "local"


@pytest.mark.parametrize("path", [f"/v1/runs/{RUN}", f"/runs/{RUN}"])
async def test_a_run_is_read_on_both_paths(edge: Gateway, path: str) -> None:
    answer = await edge.own(path)
    assert (answer.status, json.loads(answer.body)["run"]["runId"]) == (200, RUN)


@pytest.mark.parametrize("path", [f"/v1/runs/{RUN}:pause", f"/runs/{RUN}/pause"])
async def test_a_run_is_paused_on_both_paths(edge: Gateway, path: str) -> None:
    answer = await edge.own(path, *post("{}"))
    assert json.loads(answer.body)["run"]["phase"] == "RUN_PHASE_PAUSED"


async def test_a_bad_field_is_named_with_its_violation(edge: Gateway) -> None:
    answer = await edge.own("/v1/missions", *post('{"spec": {"goal": ""}}'))
    bad = next(detail for detail in _details(answer.error) if detail["@type"].endswith("BadRequest"))
    assert (answer.status, answer.error["code"]) == (400, 3)
    assert "'field': 'spec.goal'" in str(bad["fieldViolations"])


async def test_what_does_not_exist_is_404_with_its_reason(edge: Gateway) -> None:
    answer = await edge.own(f"/v1/missions/{MISSION}")
    assert (answer.status, answer.error["code"]) == (404, 5)
    assert _details(answer.error)[0]["reason"] == "MISSION_NOT_FOUND"
    assert answer.headers["x-request-id"]


async def test_a_method_that_nobody_serves_yet_is_501(edge: Gateway) -> None:
    answer = await edge.own("/v1/approvals")
    assert (answer.status, answer.error["code"]) == (501, 12)


@pytest.mark.parametrize("path", ["/v1/nothing", "/nothing", "/v1/missions/a/b/c"])
async def test_an_unknown_path_is_404_as_json_with_the_request_id(edge: Gateway, path: str) -> None:
    answer = await edge.own(path)
    assert (answer.status, answer.error["code"]) == (404, 5)
    assert answer.headers["content-type"] == "application/json"
    told = next(detail for detail in _details(answer.error) if detail["@type"].endswith("RequestInfo"))
    assert told["requestId"] == answer.headers["x-request-id"]


async def test_text_that_is_no_json_is_400_as_json(edge: Gateway) -> None:
    answer = await edge.own("/v1/missions", *post("{bad"))
    assert (answer.status, answer.error["code"]) == (400, 3)


async def test_an_unknown_query_parameter_is_refused(edge: Gateway) -> None:
    answer = await edge.own(f"/v1/runs/{RUN}?colour=red")
    assert answer.status == 400
    assert "colour" in str(answer.error["message"])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"spec": {"goal": "x", "dryrun": true}}', "spec.dryrun"),
        ('{"nonsense": 1}', "nonsense"),
        ('{"spec": {"goal": "x", "inputs": [{"name": "a"}, {"nmae": "b"}]}}', "spec.inputs.nmae"),
        ('{"spec":\n{"limits":{ "maxWallTime" : "5s","approveAbove":1 } } }', "spec.limits.approveAbove"),
        ('{"spec": {"goal": "a \\" b: {", "labels": [], "x": {}}}', "spec.x"),
    ],
)
async def test_a_field_that_does_not_exist_is_refused_by_its_path(edge: Gateway, body: str, field: str) -> None:
    answer = await edge.own("/v1/missions", *post(body))
    assert (answer.status, answer.error["code"]) == (400, 3)
    assert f"there is no field {field};" in str(answer.error["message"])


@pytest.mark.parametrize(
    "body",
    [
        '{"spec": {"goal": "x", "dryRun": true, "limits": {"maxWallTime": "5s"}}, "requestId": ""}',
        '{"spec": {"goal": "x", "dry_run": false, "allowed_hosts": ["a", "b"]}, "request_id": ""}',
        '{"spec": {"goal": "{\\"x\\": 1}", "inputs": [], "runtime": 1}}',
        ' {"spec":{"goal":"\\u00e9\\\\"}} ',
    ],
)
async def test_both_spellings_of_every_field_are_fine(edge: Gateway, body: str) -> None:
    assert (await edge.own("/v1/missions", *post(body))).status == 200


@pytest.mark.parametrize(
    "body", ["", "{", "[", '{"spec"', '{"spec": ', '"', "nul", "[" * 100_000, '{"spec": {"goal": "x"}}}']
)
async def test_text_that_is_no_json_is_refused_and_nothing_breaks(edge: Gateway, body: str) -> None:
    bad = edge.folder / "bad.json"
    bad.write_text(body)
    answer = await edge.own("/v1/missions", *post(f"@{bad}"))
    assert (answer.status, answer.error["code"]) == (400, 3)
    assert (await edge.own("/v1/missions", *post(SPEC))).status == 200


async def test_a_body_above_the_limit_is_413(edge: Gateway) -> None:
    large = edge.folder / "large.json"
    large.write_text('{"spec": {"goal": "%s"}}' % ("x" * (9 * 1024 * 1024)))
    answer = await edge.own("/v1/missions", *post(f"@{large}"), "-H", "expect:")
    assert (answer.status, answer.error["code"]) == (413, 3)


async def test_a_goal_of_a_megabyte_is_a_violation(edge: Gateway) -> None:
    large = edge.folder / "goal.json"
    large.write_text('{"spec": {"goal": "%s"}}' % ("x" * 1024 * 1024))
    answer = await edge.own("/v1/missions", *post(f"@{large}"), "-H", "expect:")
    assert (answer.status, answer.error["code"]) == (400, 3)


async def test_health_and_the_contract_need_no_token(edge: Gateway) -> None:
    health, contract = await edge.call("/healthz"), await edge.call("/openapi.json")
    assert (health.status, contract.status) == (200, 200)
    assert "/v1/missions" in json.loads(contract.body)["paths"]


def _details(error: dict[str, object]) -> list[dict[str, str]]:
    return cast(list[dict[str, str]], error["details"])
