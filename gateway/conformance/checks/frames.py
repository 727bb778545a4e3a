"""Frames: many in one message, again, missing, unknown, broken."""

from __future__ import annotations

from gateway.conformance.actions import noop
from gateway.conformance.bench import Bench
from gateway.conformance.checks.claims import claim, ended_well
from gateway.conformance.stream import MANY_FRAMES, QUIET
from gateway.conformance.verdicts import Check, Failed, NotOffered
from skyagent.execution.v1 import worker_service_pb2 as pb

TOGETHER = 3
GARBAGE = b"\xff" * 16
UNKNOWN_FIELD = b"\xd2\x05\x03new"  # field 90, three bytes: a frame that a later version may have


async def together(bench: Bench) -> None:
    """Three assigns in one message."""
    stream = await bench.stream()
    if stream.version < MANY_FRAMES:
        raise NotOffered(f"it speaks protocol version {stream.version}, which has one frame in a message")
    attempts = [(bench.key(), bench.marker("together")) for _ in range(TOGETHER)]
    stream.send_together(await stream.assigns([(key, noop(marker)) for key, marker in attempts]))
    for key, marker in attempts:
        ended_well(await stream.result(key))
        bench.happened(marker, 1)
    await stream.applied()


async def acknowledged(bench: Bench) -> None:
    """With nothing else to say, a heartbeat carries the ack."""
    stream = await bench.stream()
    stream.inspect(bench.key())
    await stream.applied()


async def repeated(bench: Bench) -> None:
    """An Assign under a number that was applied already."""
    stream, key, marker = await bench.stream(), bench.key(), bench.marker("repeated")
    stream.inspect(key)
    await stream.state(key)
    stream.send_as(stream.said, pb.ControlResponse(assign=stream.assignment(key, noop(marker))))
    await stream.stays_quiet("step_accepted step_result", key, why="for a frame that was applied before")
    bench.happened(marker, 0)


async def missing(bench: Bench) -> None:
    """The number after the next: what is between got lost."""
    stream, key, marker = await bench.stream(), bench.key(), bench.marker("gap")
    stream.send_as(stream.said + 2, pb.ControlResponse(assign=stream.assignment(key, noop(marker))))
    await stream.gone()
    await _goes_on(bench)
    bench.happened(marker, 0)


async def unknown(bench: Bench) -> None:
    """A frame of a kind that this version does not have."""
    stream = await bench.stream()
    frame = pb.ControlResponse(seq=stream.said + 1)
    stream.said += 1
    stream.send_bytes(frame.SerializeToString() + UNKNOWN_FIELD)
    await stream.applied()
    claim(not stream.ended.is_set(), "it ended the stream")
    await _goes_on(bench)


async def garbage(bench: Bench) -> None:
    """Bytes that are no message; the stream may end, the process must not."""
    stream = await bench.stream()
    stream.send_bytes(GARBAGE)
    await bench.clock.sleep(QUIET)
    if not stream.ended.is_set():
        stream.close()
    await _goes_on(bench)
    now = (await bench.stream()).hello.incarnation_id
    claim(now == stream.hello.incarnation_id, "the process did not outlive bytes that are no message")


async def invalid(bench: Bench) -> None:
    """Frames without a key, which the contract requires."""
    stream = await bench.stream()
    for frame in (pb.ControlResponse(cancel=pb.Cancel()), pb.ControlResponse(inspect=pb.Inspect())):
        stream.send(frame)
    stream.send(pb.ControlResponse(assign=pb.Assign()))
    await _goes_on(bench)
    now = (await bench.stream()).hello.incarnation_id
    claim(now == stream.hello.incarnation_id, "the process did not outlive a frame without a key")


async def _goes_on(bench: Bench) -> None:
    """A step is done as ever, on the present stream or on the next."""
    key, marker = bench.key(), bench.marker("goes-on")
    try:
        await (await bench.stream()).assign(key, noop(marker))
    except Failed:
        await (await bench.stream()).assign(key, noop(marker))
    result = await bench.result_on_any_stream(key)
    ended_well(result)


CHECKS = (
    Check("acknowledged", "Every frame is acknowledged, by the next heartbeat at the latest.", acknowledged),
    Check("several-frames", "Several frames of one message are applied in order, each once.", together),
    Check("repeated-frame", "A frame whose number was applied already is ignored.", repeated),
    Check("missing-frame", "A gap in the numbers ends the stream; the next one tells everything again.", missing),
    Check("unknown-frame", "A frame of a later version is acknowledged and otherwise ignored.", unknown),
    Check("malformed-bytes", "Bytes that are no message do not end the worker.", garbage),
    Check("invalid-frame", "A frame that breaks the contract does not end the worker.", invalid),
)
