"""A real Envoy in front of a real server, both on free ports."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.envoy.edge import Address
from gateway.envoy.process import command, edge_of, validate, write
from gateway.supervisor.readiness import gateway as ready_gateway
from infra.auth import prepare_worker_token
from infra.clock import SystemClock
from infra.ids import system_ids
from infra.mesh import serving
from infra.processes import spawn
from infra.settings import GatewaySettings, Settings
from tests.gateway.http import Gateway
from tests.gateway.plane import PLANE


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """A port that nobody listens on now."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> AsyncGenerator[Gateway]:
    """A gateway with a built dashboard in front of PLANE."""
    folder = tmp_path_factory.mktemp("edge")
    dashboard = _dashboard(folder)
    settings = Settings(
        data_dir=folder / "data", listen="127.0.0.1:0", gateway=GatewaySettings(port=free_port()), drain_grace=1.0
    )
    clock = SystemClock()
    async with serving([PLANE], settings) as runtime:
        rendered = replace(edge_of(settings, dashboard), control=Address.parse(runtime.address))
        path = settings.run_dir / "envoy.json"
        write(rendered, path)
        await validate(path)
        child = await spawn(command(path), clock, log_path=folder / "envoy.log")
        try:
            await ready_gateway("127.0.0.1", settings.gateway.port, clock)(child.pid)
            yield Gateway(
                settings.gateway.port,
                settings.token_path.read_text(),
                prepare_worker_token(settings, clock, system_ids(clock), "noop-1").read_text(),
                child.pid,
                folder,
            )
        finally:
            await child.stop(2.0)


def _dashboard(folder: Path) -> Path:
    dashboard = folder / "dist"
    (dashboard / "assets").mkdir(parents=True)
    (dashboard / "index.html").write_text("<!doctype html><title>the dashboard</title>")
    (dashboard / "assets" / "index-abc123.js").write_text("console.log(1)")
    (folder / "secret.txt").write_text("nobody may read this")
    (dashboard / "secret.txt").write_text("nobody may read this")
    return dashboard
