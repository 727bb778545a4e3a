"""Kill -9, and what the next process knows. One kill serves several checks."""

from __future__ import annotations

from gateway.conformance.actions import fenced, noop
from gateway.conformance.bench import Aftermath, Bench
from gateway.conformance.checks.claims import claim, ended_well, outcome_of, said, stands_at
from gateway.conformance.verdicts import Check
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.execution.v1 import worker_service_pb2 as pb

EPOCH = 7


async def same_journal(bench: Bench) -> None:
    """Two processes, one journal."""
    seen = await _killed(bench)
    claim(seen.after.journal_id == seen.before.journal_id, "the journal has another id after a restart")
    claim(seen.after.incarnation_id != seen.before.incarnation_id, "the next process has the incarnation of the last")
    claim(seen.after.worker_id == seen.before.worker_id, "the worker has another name after a restart")


async def lost(bench: Bench) -> None:
    """Killed while the effect was under way: it happened, and the worker cannot know."""
    seen, stream = await _killed(bench), await bench.stream()
    claim(seen.held(seen.running) == "HELD_STATE_LOST", f"Hello says {seen.held(seen.running)} of what was running")
    outcome = (await stream.result(seen.running)).outcome
    claim(outcome.status == act.OUTCOME_STATUS_LOST, f"what was running is reported as {said(outcome)}, not LOST")
    claim(outcome.effect == eff.EFFECT_UNKNOWN, f"what was running is reported as {said(outcome)}, not EFFECT_UNKNOWN")
    reading = (await stream.result(seen.reading)).outcome
    claim(reading.status == act.OUTCOME_STATUS_LOST, f"what was reading is reported as {said(reading)}, not LOST")
    await stream.assign(seen.running, noop(seen.markers["running"]))
    again = outcome_of(await stream.answer(seen.running))
    claim(again.status == act.OUTCOME_STATUS_LOST, f"assigned again it is answered by {said(again)}, not LOST")
    bench.happened(seen.markers["running"], 1)


async def done(bench: Bench) -> None:
    """Killed between the result and its ResultRecorded."""
    seen, stream = await _killed(bench), await bench.stream()
    claim(seen.held(seen.done) == "HELD_STATE_DONE", f"Hello says {seen.held(seen.done)} of what was done")
    outcome = (await stream.result(seen.done)).outcome
    claim(outcome.SerializeToString() == seen.outcome, "the outcome changed by the restart")
    bench.happened(seen.markers["done"], 1)


async def keys(bench: Bench) -> None:
    """Recorded keys, tombstones and fences are on disk, too."""
    seen, stream = await _killed(bench), await bench.stream()
    await stream.assign(seen.released, noop(seen.markers["released"]))
    stands_at(await stream.answer(seen.released), pb.HELD_STATE_RELEASED)
    bench.happened(seen.markers["released"], 1)
    claim(seen.held(seen.tombstone) == "HELD_STATE_TOMBSTONE", f"Hello says {seen.held(seen.tombstone)} of a tombstone")
    await stream.assign(seen.tombstone, noop(seen.markers["tombstone"]))
    await stream.answer(seen.tombstone)
    bench.happened(seen.markers["tombstone"], 0)
    await stream.assign(seen.overtaken, noop(seen.markers["overtaken"]))
    stands_at(await stream.answer(seen.overtaken), pb.HELD_STATE_NEVER_BEGUN)
    bench.happened(seen.markers["overtaken"], 0)


async def second(bench: Bench) -> None:
    """The same command, beside the process that holds the journal."""
    await bench.stream()
    bench.keep_nothing()
    code = await bench.operator.second()
    claim(not bench.plane.dialling(), "a second process on the same journal said Hello")
    claim(code is not None, "a second process on the same journal went on running")
    claim(code != 0, "a second process on the same journal ended with exit code 0, as if all were well")


async def _killed(bench: Bench) -> Aftermath:
    """The one kill of this trial, and the restart after it."""
    if bench.aftermath is None:
        bench.aftermath = await _kill(bench)
    return bench.aftermath


async def _kill(bench: Bench) -> Aftermath:
    stream = await bench.stream()
    names = ("released", "done", "running", "reading", "tombstone", "overtaken")
    markers = {name: bench.marker(name) for name in names}
    released, finished, running, reading = (bench.key(epoch=EPOCH) for _ in range(4))
    await stream.assign(released, noop(markers["released"]))
    ended_well(await stream.result(released))
    stream.recorded(released)
    await stream.assign(finished, noop(markers["done"]))
    outcome = (await stream.result(finished)).outcome
    for key, name, effect_class in (
        (running, "running", eff.EFFECT_CLASS_ONCE),
        (reading, "reading", eff.EFFECT_CLASS_READ),
    ):
        bench.witness.hold(markers[name])
        await stream.assign(key, noop(markers[name], effect_class))
        await bench.witness.sees(markers[name])
    tombstone = bench.key(epoch=EPOCH)
    stream.cancel(tombstone)
    await stream.result(tombstone)
    await stream.applied()
    await bench.operator.kill()
    bench.transcript.note("the worker was killed")
    bench.witness.let(markers["running"])
    bench.witness.let(markers["reading"])
    before, after = stream.hello, (await bench.meet()).hello
    overtaken = fenced(bench.key(of=released), EPOCH - 1)
    for key in (released, finished, running, reading, tombstone):
        bench.keep(key)
    serialized = outcome.SerializeToString()
    return Aftermath(before, after, released, finished, serialized, running, reading, tombstone, overtaken, markers)


CHECKS = (
    Check("restart", "A restarted worker has its journal's id and a new incarnation.", same_journal),
    Check("killed-while-running", "What a killed process had begun is LOST, says so, and never executes again.", lost),
    Check("killed-when-done", "What a killed process had done is reported by the next.", done),
    Check("killed-keeps-keys", "Recorded keys, tombstones and fences outlive kill -9.", keys),
    Check("one-holder", "A second process on the same journal is refused.", second),
)
