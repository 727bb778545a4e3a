"""What a mesh consists of, by its settings."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from gateway.envoy.process import command
from gateway.supervisor import readiness
from gateway.supervisor.keeper import Program
from gateway.supervisor.live import inventory_path
from infra.clock import Clock
from infra.settings import Settings, environment, split_address

CONTROL_PLANE = "control-plane"
ENVOY = "envoy"
# A worker finishes the step in hand. Its journal would save it anyway, and whoever stops a mesh should not wait long.
WORKER_GRACE = 5.0


def programs_of(settings: Settings, clock: Clock) -> tuple[Program, ...]:
    """The control plane, the gateway, and the workers."""
    return (
        Program(
            CONTROL_PLANE,
            skyagent("serve", "all"),
            readiness.control_plane(settings.listen, clock),
            port=split_address(settings.listen)[1],
            grace=settings.drain_grace + 2.0,
        ),
        Program(
            ENVOY,
            command(envoy_configuration(settings)),
            readiness.gateway(settings.gateway.host, settings.gateway.port, clock),
            port=settings.gateway.port,
            grace=2.0,
        ),
        *(_worker(settings, kind, number, clock) for kind, number in _workers(settings)),
    )


def envoy_configuration(settings: Settings) -> Path:
    """Where Envoy's rendered configuration is."""
    return settings.run_dir / "envoy.json"


def skyagent(*arguments: str) -> tuple[str, ...]:
    """Our own command, by the interpreter that runs now."""
    return (sys.executable, "-m", "gateway.cli", *arguments)


def child_environment(settings: Settings) -> Mapping[str, str]:
    """The environment of every child: what was given on a command line here must hold there too."""
    return environment() | {
        "SKYAGENT_DATA_DIR": str(settings.data_dir),
        "SKYAGENT_LISTEN": settings.listen,
        "SKYAGENT_GATEWAY__PORT": str(settings.gateway.port),
        "PYTHONUNBUFFERED": "1",
    }


def _workers(settings: Settings) -> list[tuple[str, int]]:
    return [(kind, number) for kind, count in settings.workers.items() for number in range(1, count + 1)]


def _worker(settings: Settings, kind: str, number: int, clock: Clock) -> Program:
    worker_id = f"{kind}-{number}"
    return Program(
        worker_id,
        skyagent("worker", kind, "--id", worker_id),
        readiness.worker(inventory_path(settings, worker_id), clock),
        grace=WORKER_GRACE,
    )
