"""When the control plane goes away, for a moment or for good."""

from __future__ import annotations

from itertools import pairwise

from gateway.conformance.actions import noop
from gateway.conformance.bench import Bench
from gateway.conformance.checks.claims import claim, ended_well
from gateway.conformance.plane import plane
from gateway.conformance.stream import Terms
from gateway.conformance.verdicts import Check
from skyagent.execution.v1 import worker_service_pb2 as pb

TURNED_AWAY = 4
LEAST_WAIT = 0.01  # seconds between two dials
LEAST_TOTAL = 0.15  # seconds that three waits take together; they have to grow
DRAIN_MS = 5000


async def backs_off(bench: Bench) -> None:
    """The server dies, comes back and turns the first streams away; a step that ran meanwhile is reported."""
    stream, key, marker = await bench.stream(), bench.key(), bench.marker("away")
    bench.witness.hold(marker)
    await stream.assign(key, noop(marker))
    await bench.witness.sees(marker)
    bench.plane.turning_away = TURNED_AWAY
    bench.plane.turned_away_at.clear()
    await bench.plane.close()
    bench.witness.let(marker)
    await bench.plane.open(bench.plane.address)
    again = await bench.meet()
    claim(again.hello.incarnation_id == stream.hello.incarnation_id, "the process did not outlive its control plane")
    waits = [later - earlier for earlier, later in pairwise(bench.plane.turned_away_at)]
    claim(min(waits) >= LEAST_WAIT, f"it dialled again after {min(waits) * 1000:.0f} ms")
    claim(sum(waits) >= LEAST_TOTAL, f"it dialled {TURNED_AWAY} times within {sum(waits) * 1000:.0f} ms")
    ended_well(await again.result(key))
    bench.happened(marker, 1)


async def moves(bench: Bench) -> None:
    """Drain names another address; there, too, it is drained, back to the first."""
    stream = await bench.stream()
    async with plane("127.0.0.1:0", "", bench.clock, bench.transcript) as other:
        stream.send(_drain(bench, other.address))
        moved = await other.dialled()
        moved.welcome(Terms())
        claim(moved.hello.incarnation_id == stream.hello.incarnation_id, "another process came")
        key, marker = bench.key(), bench.marker("moved")
        await moved.assign(key, noop(marker))
        ended_well(await moved.result(key))
        moved.recorded(key)
        moved.send(_drain(bench, bench.plane.address))
        await bench.meet()


async def alternates(bench: Bench) -> None:
    """Told of another node in peace; then this one dies."""
    stream = await bench.stream()
    async with plane("127.0.0.1:0", "", bench.clock, bench.transcript) as other:
        stream.send(pb.ControlResponse(alternates=pb.Alternates(addresses=[other.address])))
        await stream.applied()
        await bench.plane.close()
        moved = await other.dialled()
        moved.welcome(Terms())
        claim(moved.hello.incarnation_id == stream.hello.incarnation_id, "another process came")
        await bench.plane.open(bench.plane.address)
        moved.send(_drain(bench, bench.plane.address))
        await bench.meet()


def _drain(bench: Bench, address: str) -> pb.ControlResponse:
    drain = pb.Drain(alternates=[address], reason="the check says so")
    drain.deadline.FromMilliseconds(bench.clock.now_ms() + DRAIN_MS)
    return pb.ControlResponse(drain=drain)


CHECKS = (
    Check(
        "backs-off",
        "When the control plane goes away the worker dials again, with waits between that grow.",
        backs_off,
    ),
    Check(
        "drain-moves", "Drain with alternates: the worker leaves in order and dials one of them.", moves, required=False
    ),
    Check(
        "alternates", "When a node dies the worker dials one of those that it was told of.", alternates, required=False
    ),
)
