"""What a worker is made of, opened once and shared by the modules that act on it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from execution.blobs import Spool
from execution.committer import Committer
from execution.executor import Executor
from execution.joints import Joints
from execution.lease import Lease
from execution.uplink import Uplink
from infra.clock import Clock
from infra.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class Parts:
    """`group` holds what must outlive a stream: the attempts and what they still have to say."""

    executor: Executor
    journal: Committer
    spool: Spool
    uplink: Uplink
    lease: Lease
    clock: Clock
    joints: Joints
    telemetry: Telemetry
    group: asyncio.TaskGroup
