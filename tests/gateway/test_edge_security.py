"""Who gets through a real Envoy, and who does not."""

from __future__ import annotations

import pytest

from infra.auth import Role, mint_token
from infra.clock import SystemClock
from infra.settings import Settings
from tests.gateway.http import Answer, Gateway, post
from tests.gateway.plane import PAGE, PAGE_DIGEST, PICTURE, PICTURE_DIGEST, RUN

pytestmark = pytest.mark.asyncio(loop_scope="module")

API = [
    "/v1/missions",
    f"/v1/runs/{RUN}",
    f"/runs/{RUN}",
    f"/v1/runs/{RUN}:watch",
    f"/v1/blobs/{PAGE_DIGEST}",
]


@pytest.mark.parametrize("path", API)
async def test_every_path_of_the_api_needs_a_token(edge: Gateway, path: str) -> None:
    answer = await edge.call(path)
    assert (answer.status, answer.error["code"]) == (401, 16)


@pytest.mark.parametrize("path", ["/missions", "/v1/missions", f"/runs/{RUN}/pause", f"/v1/runs/{RUN}:pause"])
async def test_every_command_of_the_api_needs_a_token(edge: Gateway, path: str) -> None:
    assert (await edge.call(path, *post("{}"))).status == 401


async def test_rpc_paths_need_a_token_whatever_the_content_type(edge: Gateway) -> None:
    answer = await edge.call("/skyagent.run.v1.RunService/GetRun", *post("{}"))
    assert answer.status == 401


@pytest.mark.parametrize("path", ["/v1/missions/x", "//v1/missions/x", "/v1/./missions/x", "/x/../v1/missions/x"])
async def test_no_spelling_of_a_path_gets_around_the_token(edge: Gateway, path: str) -> None:
    assert (await edge.call(path)).status == 401


async def test_a_token_of_another_key_is_refused(edge: Gateway) -> None:
    head, claims, signature = edge.token.split(".")
    forged = ".".join((head, claims, signature[::-1]))
    answer = await edge.call(f"/v1/runs/{RUN}", token=forged)
    assert (answer.status, answer.error["code"]) == (401, 16)


async def test_an_expired_token_is_refused(edge: Gateway) -> None:
    settings = Settings(data_dir=edge.folder / "data")
    # Envoy forgives a minute of clock skew.
    old = mint_token(settings, SystemClock(), subject="ada", tenant="default", role=Role.ADMIN, ttl=-120)
    assert (await edge.call(f"/v1/runs/{RUN}", token=old)).status == 401


async def test_a_worker_may_not_do_what_people_may(edge: Gateway) -> None:
    answer = await edge.call(f"/v1/runs/{RUN}", token=edge.worker_token)
    assert (answer.status, answer.error["code"]) == (403, 7)


async def test_the_worker_stream_is_not_reachable_at_all(edge: Gateway) -> None:
    answer = await edge.call(
        "/skyagent.execution.v1.WorkerService/Control", "-X", "POST", "--http2-prior-knowledge",
        "-H", "content-type: application/grpc", token=edge.worker_token,
    )  # fmt: skip
    assert answer.headers["grpc-status"] == "12"


@pytest.mark.parametrize("path", ["/", "/healthz", "/openapi.json", f"/v1/runs/{RUN}"])
async def test_another_host_name_that_leads_here_is_refused(edge: Gateway, path: str) -> None:
    answer = await edge.own(path, "-H", f"host: rebound.example:{edge.port}")
    assert (answer.status, answer.error["code"]) == (403, 7)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "skyagent.localhost"])
async def test_every_name_of_this_machine_is_fine(edge: Gateway, host: str) -> None:
    assert (await edge.own(f"/v1/runs/{RUN}", "-H", f"host: {host}:{edge.port}")).status == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1"])
async def test_a_page_of_another_origin_is_refused(edge: Gateway, origin: str) -> None:
    assert (await edge.own("/v1/missions", *post("{}"), "-H", f"origin: {origin}")).status == 403


async def test_our_own_page_is_let_through(edge: Gateway) -> None:
    answer = await edge.own(
        f"/v1/runs/{RUN}", "-H", f"origin: http://{edge.address}", "-H", "sec-fetch-site: same-origin"
    )
    assert answer.status == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_a_request_that_another_site_made_is_refused(edge: Gateway, site: str) -> None:
    assert (await edge.own(f"/v1/runs/{RUN}", "-H", f"sec-fetch-site: {site}")).status == 403


async def test_a_link_from_another_site_opens_the_dashboard(edge: Gateway) -> None:
    answer = await edge.call(f"/runs/{RUN}", "-H", "sec-fetch-site: cross-site", "-H", "accept: text/html,*/*")
    assert (answer.status, b"the dashboard" in answer.body) == (200, True)


async def test_a_browser_signs_in_by_cookie(edge: Gateway) -> None:
    signed_in = await edge.call("/session", "-X", "POST", "-H", f"x-skyagent-token: {edge.token}")
    cookie = signed_in.headers["set-cookie"]
    answer = await edge.call(f"/v1/runs/{RUN}", "-H", f"cookie: theme=dark; {cookie.partition(';')[0]}")
    assert (signed_in.status, answer.status) == (204, 200)
    assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))


async def test_a_wrong_token_makes_no_cookie(edge: Gateway) -> None:
    answer = await edge.call("/session", "-X", "POST", "-H", "x-skyagent-token: nonsense")
    assert (answer.status, "set-cookie" in answer.headers) == (401, False)


async def test_signing_out_needs_no_token(edge: Gateway) -> None:
    answer = await edge.call("/session", "-X", "DELETE")
    assert (answer.status, "Max-Age=0" in answer.headers["set-cookie"]) == (204, True)


async def test_a_collected_page_is_saved_and_never_shown(edge: Gateway) -> None:
    answer = await edge.own(f"/v1/blobs/{PAGE_DIGEST}")
    assert (answer.status, answer.body) == (200, PAGE)
    assert answer.headers["content-disposition"] == "attachment"
    _confined(answer)


async def test_a_collected_picture_is_shown_but_confined(edge: Gateway) -> None:
    answer = await edge.own(f"/v1/blobs/{PICTURE_DIGEST}")
    assert (answer.body, answer.headers["content-type"]) == (PICTURE, "image/png")
    assert "content-disposition" not in answer.headers
    _confined(answer)


async def test_the_absence_of_bytes_is_not_cached(edge: Gateway) -> None:
    answer = await edge.own(f"/v1/blobs/b3:{'2' * 64}")
    assert answer.status == 404
    assert "max-age" not in answer.headers.get("cache-control", "")


async def test_a_header_with_an_underscore_is_refused(edge: Gateway) -> None:
    assert (await edge.own(f"/v1/runs/{RUN}", "-H", "x_skyagent_tenant: other")).status == 400


def _confined(answer: Answer) -> None:
    assert answer.headers["content-security-policy"].startswith("sandbox;")
    assert answer.headers["x-content-type-options"] == "nosniff"
