"""Leases: the right to begin ends by time, on the worker's own clock."""

from __future__ import annotations

from gateway.conformance.actions import noop
from gateway.conformance.bench import Bench
from gateway.conformance.checks.claims import ended_well, refused, without_effect
from gateway.conformance.stream import PATIENCE, Stream, Terms
from gateway.conformance.verdicts import Check, Failed
from skyagent.execution.v1 import worker_service_pb2 as pb

TTL = 0.8
OVER = 1.2  # seconds after which such a lease is over for sure
SELDOM = PATIENCE * 2  # a heartbeat that does not come meanwhile


async def over(bench: Bench) -> None:
    """In a process that never had a longer lease; no heartbeat is due before this one ends."""
    stream = await bench.restarting()
    stream.welcome(Terms(lease_ttl=TTL, heartbeat=SELDOM))
    await stream.expect("credit")
    await bench.clock.sleep(OVER)
    await _begins_nothing(bench, stream)


async def counts_from_hello(bench: Bench) -> None:
    """Welcome comes after the lease that it grants is over, counted from when the worker asked."""
    stream = await bench.restarting()
    await bench.clock.sleep(OVER)
    stream.welcome(Terms(lease_ttl=TTL, heartbeat=SELDOM))
    await _begins_nothing(bench, stream)


async def running_finishes(bench: Bench) -> None:
    """Heartbeats stay unanswered while a step runs, in a process that never had a longer lease."""
    stream = await bench.restarting()
    stream.renewing = False
    stream.welcome(Terms(lease_ttl=TTL, heartbeat=TTL / 4))
    key, marker = bench.key(), bench.marker("unrenewed")
    bench.witness.hold(marker)
    await stream.assign(key, noop(marker))
    await bench.witness.sees(marker)
    await bench.clock.sleep(OVER)
    bench.witness.let(marker)
    ended_well(await bench.result_on_any_stream(key))
    bench.happened(marker, 1)
    await _ended(bench)


async def _begins_nothing(bench: Bench, stream: Stream) -> None:
    """What is assigned now is refused, or the worker ends the stream; in no case does it begin."""
    key, marker = bench.key(), bench.marker("too-late")
    stream.send(pb.ControlResponse(assign=stream.assignment(key, noop(marker))))
    try:
        result = await stream.result(key)
    except Failed:
        if not stream.ended.is_set():
            raise
    else:
        refused(result, "LEASE_ENDED")
        without_effect(result)
    bench.happened(marker, 0)
    await _ended(bench)


async def _ended(bench: Bench) -> None:
    """The short lease is of no use for other checks."""
    stream = await bench.stream()
    stream.close()
    await stream.gone()


CHECKS = (
    Check("lease-end-forbids", "When the lease has ended nothing begins.", over),
    Check(
        "lease-from-asking",
        "A lease counts from the sending of what was answered, not from the answer.",
        counts_from_hello,
    ),
    Check("unrenewed-finishes", "What runs when the lease ends finishes and is reported.", running_finishes),
)
