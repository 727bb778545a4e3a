"""What a worker must not begin."""

from __future__ import annotations

from gateway.conformance.actions import FOREIGN, fenced, noop
from gateway.conformance.bench import Bench
from gateway.conformance.checks.claims import ended_well, refused, stands, stands_at, without_effect
from gateway.conformance.verdicts import Check, NotOffered
from infra.digest import digest_of
from skyagent.execution.v1 import worker_service_pb2 as pb

PAST_MS = 60_000


async def wrong_digest(bench: Bench) -> None:
    """The digest is that of other bytes."""
    stream, key, marker = await bench.stream(), bench.key(), bench.marker("forged")
    await stream.assign(key, noop(marker), action_digest=digest_of(b"another action"))
    result = await stream.result(key)
    refused(result, "DIGEST_MISMATCH")
    without_effect(result)
    bench.happened(marker, 0)


async def exact_bytes(bench: Bench) -> None:
    """The message says one thing and its bytes, of which the digest is, another."""
    stream, key = await bench.stream(), bench.key()
    if not stream.hello.capabilities.exact_actions:
        raise NotOffered("it serializes actions itself (no exact_actions)")
    shown, meant = noop(bench.marker("shown")), noop(bench.marker("meant"))
    data = meant.SerializeToString(deterministic=True)
    await stream.assign(key, shown, action_bytes=data, action_digest=digest_of(data))
    ended_well(await stream.result(key))
    bench.happened(meant.noop.payload, 1)
    bench.happened(shown.noop.payload, 0)


async def lower_fence(bench: Bench) -> None:
    """An owner that was overtaken gets a state and no result, which would settle the attempt of the present owner."""
    stream, key = await bench.stream(), bench.key(epoch=5)
    await stream.assign(key, noop(bench.marker("owner")))
    ended_well(await stream.result(key))
    late, marker = bench.key(of=key, epoch=4), bench.marker("overtaken")
    await stream.assign(late, noop(marker))
    stands_at(await stream.answer(late), pb.HELD_STATE_NEVER_BEGUN)
    bench.happened(marker, 0)


async def higher_fence(bench: Bench) -> None:
    """Inspect by a later owner is enough, and a log generation weighs more than any epoch."""
    stream, key, marker = await bench.stream(), bench.key(epoch=5), bench.marker("adopted")
    stream.inspect(fenced(key, 6))
    stands(await stream.state(key), pb.HELD_STATE_NEVER_BEGUN)
    await stream.assign(key, noop(marker))
    stands_at(await stream.answer(key), pb.HELD_STATE_NEVER_BEGUN)
    bench.happened(marker, 0)
    await stream.assign(fenced(key, 6), noop(marker))
    ended_well(await stream.result(key))
    bench.happened(marker, 1)
    restored, after = bench.key(of=key, epoch=1, generation=1), bench.marker("restored")
    await stream.assign(restored, noop(after))
    ended_well(await stream.result(restored))
    former, before = bench.key(of=key, epoch=9), bench.marker("before-restore")
    await stream.assign(former, noop(before))
    stands_at(await stream.answer(former), pb.HELD_STATE_NEVER_BEGUN)
    bench.happened(before, 0)


async def lower_attempt(bench: Bench) -> None:
    """The first attempt comes after the second."""
    stream, second = await bench.stream(), bench.key(attempt=2)
    await stream.assign(second, noop(bench.marker("second")))
    ended_well(await stream.result(second))
    first, marker = pb.StepKey(), bench.marker("first")
    first.CopyFrom(second)
    first.attempt = 1
    await stream.assign(first, noop(marker))
    result = await stream.result(first)
    refused(result, "STALE_ATTEMPT")
    without_effect(result)
    bench.happened(marker, 0)


async def deadline_passed(bench: Bench) -> None:
    """A minute ago."""
    stream, key, marker = await bench.stream(), bench.key(), bench.marker("late")
    await stream.assign(key, noop(marker), deadline_ms=bench.clock.now_ms() - PAST_MS)
    result = await stream.result(key)
    refused(result, "DEADLINE_PASSED")
    without_effect(result)
    bench.happened(marker, 0)


async def unsupported(bench: Bench) -> None:
    """An action that Hello did not offer."""
    stream, key = await bench.stream(), bench.key()
    offered = {name.partition("/")[0] for name in stream.hello.capabilities.actions}
    action = next((action for name, action in FOREIGN.items() if name not in offered), None)
    if action is None:
        raise NotOffered("it offers every action that this check knows")
    await stream.assign(key, action)
    result = await stream.result(key)
    refused(result, "UNSUPPORTED_ACTION")
    without_effect(result)


CHECKS = (
    Check("wrong-digest-refused", "An action whose digest is not the stated one is refused.", wrong_digest),
    Check("exact-bytes", "With exact_actions, what is executed are the bytes that the digest is of.", exact_bytes),
    Check(
        "lower-fence-refused", "What an overtaken owner of a run assigns never begins; it gets no result.", lower_fence
    ),
    Check("higher-fence-adopted", "A later owner's fence binds from its first frame on.", higher_fence),
    Check("lower-attempt-refused", "An attempt below one that is known of its step is refused.", lower_attempt),
    Check("deadline-passed-refused", "After its deadline nothing begins.", deadline_passed),
    Check("unsupported-refused", "An action that Hello did not offer is refused as UNSUPPORTED_ACTION.", unsupported),
)
