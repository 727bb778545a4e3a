"""Cancel always ends in a result that says what is known of the effect."""

from __future__ import annotations

from gateway.conformance.actions import noop
from gateway.conformance.bench import Bench
from gateway.conformance.checks.claims import EFFECTS_KNOWN, claim, ended_well, outcome_of, said, stands, without_effect
from gateway.conformance.verdicts import Check
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.execution.v1 import worker_service_pb2 as pb


async def tombstone(bench: Bench) -> None:
    """Cancel comes before the Assign that it is meant for."""
    stream, key, marker = await bench.stream(), bench.key(), bench.marker("overtaken")
    stream.cancel(key)
    result = await stream.result(key)
    claim(result.outcome.status == act.OUTCOME_STATUS_CANCELLED, f"the answer is {said(result.outcome)}, not CANCELLED")
    without_effect(result)
    stream.inspect(key)
    stands(await stream.state(key), pb.HELD_STATE_TOMBSTONE)
    await stream.assign(key, noop(marker))
    answer = outcome_of(await stream.answer(key))
    claim(answer.status == act.OUTCOME_STATUS_CANCELLED, f"the overtaken Assign is answered by {said(answer)}")
    stream.recorded(key)
    await stream.assign(key, noop(marker))
    await stream.answer(key)
    bench.happened(marker, 0)


async def running(bench: Bench) -> None:
    """Cancelled after its effect happened and before it could say so."""
    stream, key, marker = await bench.stream(), bench.key(), bench.marker("cancelled")
    bench.witness.hold(marker)
    await stream.assign(key, noop(marker))
    await bench.witness.sees(marker)
    stream.cancel(key)
    outcome = (await stream.result(key)).outcome
    bench.witness.let(marker)
    ended = outcome.status in (act.OUTCOME_STATUS_CANCELLED, act.OUTCOME_STATUS_OK)
    claim(ended, f"the answer is {said(outcome)}, not CANCELLED")
    claim(outcome.effect in EFFECTS_KNOWN, "the result does not state an effect")
    claim(outcome.effect != eff.EFFECT_NONE, "the result says that nothing happened, and the witness was told")
    stream.inspect(key)
    stands(await stream.state(key), pb.HELD_STATE_DONE)


async def done(bench: Bench) -> None:
    """Cancelled too late: the outcome stays what it is."""
    stream, key, marker = await bench.stream(), bench.key(), bench.marker("done")
    await stream.assign(key, noop(marker))
    ended_well(await stream.result(key))
    stream.cancel(key)
    answer = outcome_of(await stream.answer(key))
    claim(answer.status == act.OUTCOME_STATUS_OK, f"a done attempt is answered by {said(answer)} to its Cancel")


CHECKS = (
    Check(
        "cancel-unknown", "Cancel of an unknown key is journalled: its Assign, when it comes, never begins.", tombstone
    ),
    Check("cancel-running", "Cancel of what runs ends it, and the result says NONE, DONE or UNKNOWN truly.", running),
    Check("cancel-done", "Cancel of what is done is answered by its outcome, unchanged.", done),
)
