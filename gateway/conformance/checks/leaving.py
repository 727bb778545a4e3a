"""Leaving in order: what runs ends, is reported and recorded, and Goodbye is the last frame."""

from __future__ import annotations

import asyncio

import grpc

from gateway.conformance.actions import noop
from gateway.conformance.bench import Bench
from gateway.conformance.checks.claims import claim, ended_well, refused, said, without_effect
from gateway.conformance.stream import PATIENCE, QUIET, Stream
from gateway.conformance.verdicts import Check, Failed
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.execution.v1 import worker_service_pb2 as pb

MANY = 1000  # streams: until it has understood
DRAIN_MS = 4000


async def sigterm(bench: Bench) -> None:
    """While a step runs."""
    stream, key, marker = await bench.stream(), bench.key(), bench.marker("sigterm")
    bench.witness.hold(marker)
    await stream.assign(key, noop(marker))
    await bench.witness.sees(marker)
    await bench.operator.terminate()
    await bench.clock.sleep(QUIET)
    bench.witness.let(marker)
    ended_well(await stream.result(key))
    stream.recorded(key)
    await _goodbye(bench, stream)


async def new_journal(bench: Bench) -> None:
    """Stopped, its journal removed, started again."""
    stream = await bench.stream()
    before = stream.hello
    await bench.operator.kill()
    await bench.operator.erase()
    after = (await bench.meet()).hello
    claim(after.journal_id != before.journal_id, "a new journal has the id of the one that was removed")
    claim(not after.held, f"a new journal holds {len(after.held)} attempts")


async def drain(bench: Bench) -> None:
    """While two steps run, of which one never ends; a third is assigned before the worker can have left."""
    stream, key, marker = await bench.stream(), bench.key(), bench.marker("drain")
    endless, never = bench.key(), bench.marker("endless")
    for each, name in ((key, marker), (endless, never)):
        bench.witness.hold(name)
        await stream.assign(each, noop(name))
        await bench.witness.sees(name)
    order = pb.Drain(reason="the check says so")
    order.deadline.FromMilliseconds(bench.clock.now_ms() + DRAIN_MS)
    stream.send(pb.ControlResponse(drain=order))
    await stream.applied()
    late, other = bench.key(), bench.marker("after-drain")
    await stream.assign(late, noop(other))
    result = await stream.result(late)
    refused(result, "DRAINING")
    without_effect(result)
    bench.witness.let(marker)
    ended_well(await stream.result(key))
    bench.happened(other, 0)
    stream.recorded(late)
    stream.recorded(key)
    outcome = (await stream.result(endless)).outcome
    given_up = outcome.status == act.OUTCOME_STATUS_CANCELLED and outcome.effect != eff.EFFECT_NONE
    claim(given_up, f"at the deadline what still ran is {said(outcome)}, not CANCELLED with EFFECT_UNKNOWN")
    stream.recorded(endless)
    await _goodbye(bench, stream)


async def final_refusal(bench: Bench) -> None:
    """The control plane says that this worker may not work."""
    stream = await bench.stream()
    bench.plane.turning_away, bench.plane.turning_away_with = MANY, grpc.StatusCode.PERMISSION_DENIED
    stream.close()
    code = await bench.operator.ended()
    bench.plane.turning_away = 0
    claim(code != 0, "the process ended with exit code 0, as if all were well")


async def _goodbye(bench: Bench, stream: Stream) -> None:
    await stream.expect("goodbye", what="Goodbye")
    try:
        async with asyncio.timeout(PATIENCE):
            await stream.finished.wait()
    except TimeoutError:
        raise Failed("the stream stays open after Goodbye") from None
    code = await bench.operator.ended()
    claim(code in (0, None), f"the process ended with exit code {code}, not 0")


CHECKS = (
    Check("sigterm-drains", "SIGTERM: what runs ends and is recorded, then Goodbye and exit code 0.", sigterm),
    Check("new-journal", "A journal that was removed is followed by one with another id.", new_journal),
    Check(
        "drain",
        "Drain: what runs ends or is cancelled at the deadline, what comes is handed back as DRAINING, then Goodbye.",
        drain,
    ),
    Check(
        "final-refusal",
        "A stream that ends with PERMISSION_DENIED ends the worker: dialling again cannot help.",
        final_refusal,
        required=False,
    ),
)
