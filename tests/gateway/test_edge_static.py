"""The dashboard's files through a real Envoy."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.envoy.process import edge_of
from infra.settings import Settings
from tests.gateway.http import Gateway


@pytest.mark.asyncio(loop_scope="module")
async def test_the_shell_is_served_with_a_policy(edge: Gateway) -> None:
    answer = await edge.call("/")
    assert (answer.status, b"the dashboard" in answer.body) == (200, True)
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("path", ["/artifacts", "/memory", "/missions", "/runs/x/steps/y"])
async def test_every_page_of_the_dashboard_can_be_opened_directly(edge: Gateway, path: str) -> None:
    answer = await edge.call(path, "-H", "accept: text/html,application/xhtml+xml")
    assert (answer.status, b"the dashboard" in answer.body) == (200, True)


@pytest.mark.asyncio(loop_scope="module")
async def test_assets_are_cached_for_ever(edge: Gateway) -> None:
    answer = await edge.call("/assets/index-abc123.js")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/javascript")
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.asyncio(loop_scope="module")
async def test_a_missing_asset_is_404_and_not_cached(edge: Gateway) -> None:
    answer = await edge.call("/assets/none.js")
    assert answer.status == 404
    assert "cache-control" not in answer.headers


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "path",
    [
        "/assets/../secret.txt",
        "/assets/../../secret.txt",
        "/assets/%2e%2e/secret.txt",
        "/assets/..%2fsecret.txt",
        "/assets/..%5csecret.txt",
        "/assets//../secret.txt",
        "/assets/./../secret.txt",
        "/assets/%252e%252e/secret.txt",
        "/assets/..;/secret.txt",
        "/assets/\\../secret.txt",
        "/assets/index-abc123.js/../../secret.txt",
    ],
)
async def test_nothing_outside_the_assets_can_be_read(edge: Gateway, path: str) -> None:
    answer = await edge.call(path)
    assert answer.status in (400, 404)
    assert b"nobody may read this" not in answer.body


def test_a_dashboard_that_is_not_built_has_a_friendly_page(tmp_path: Path) -> None:
    edge = edge_of(Settings(data_dir=tmp_path), tmp_path / "no-dashboard")
    assert "The mesh is running" in edge.index.read_text()
    assert edge.assets is None
