"""The life of a step: assigned, accepted, done, reported, recorded."""

from __future__ import annotations

from gateway.conformance.actions import attempt_of, noop
from gateway.conformance.bench import Bench
from gateway.conformance.checks.claims import claim, ended_well, outcome_of, refused, stands, stands_at
from gateway.conformance.stream import Terms
from gateway.conformance.verdicts import Check
from infra.digest import digest_message
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import worker_service_pb2 as pb


async def step(bench: Bench) -> None:
    """Its effect is held up, so that StepAccepted is seen to come before it ends."""
    stream, key, marker = await bench.stream(), bench.key(), bench.marker("step")
    action = noop(marker)
    bench.witness.hold(marker)
    await stream.assign(key, action)
    await stream.accepted(key)
    await bench.witness.sees(marker)
    bench.witness.let(marker)
    result = await stream.result(key)
    ended_well(result)
    claim(result.outcome.noop.payload == marker, "the result does not return the payload of the noop")
    claim(result.action_digest == digest_message(action), "the result names another action's digest")
    claim(result.outcome.HasField("end_time"), "the outcome does not say when it ended")
    bench.happened(marker, 1)


async def credits_return(bench: Bench) -> None:
    """Every credit is used by steps that run at once; when they have ended there must be new ones, unasked."""
    stream = await bench.stream()
    await stream.room()
    attempts = [(bench.key(), bench.marker("credit")) for _ in range(stream.credits)]
    for key, marker in attempts:
        bench.witness.hold(marker)
        await stream.assign(key, noop(marker))
    for _, marker in attempts:
        await bench.witness.sees(marker)
    for _, marker in attempts:
        bench.witness.let(marker)
    for key, _ in attempts:
        ended_well(await stream.result(key))
        stream.recorded(key)
    extra, marker = bench.key(), bench.marker("credit")
    await stream.assign(extra, noop(marker))
    ended_well(await stream.result(extra))


async def result_held(bench: Bench) -> None:
    """The stream ends between a result and its ResultRecorded, which acknowledges it and no more."""
    stream, key, marker = await bench.stream(), bench.key(), bench.marker("held")
    before = stream.hello
    await stream.assign(key, noop(marker))
    outcome = (await stream.result(key)).outcome
    stream.inspect(other := bench.key())
    await stream.state(other)  # so the transport's ack of the result has arrived, which must not be taken for more
    stream = await bench.again()
    now = stream.hello
    claim(now.incarnation_id == before.incarnation_id, "another incarnation although the process is the same")
    claim(now.journal_id == before.journal_id, "another journal although the process is the same")
    held = {attempt_of(each.key): each.state for each in now.held}
    claim(held.get(attempt_of(key)) == pb.HELD_STATE_DONE, "Hello does not name an outcome that nobody has recorded")
    claim((await stream.result(key)).outcome == outcome, "the outcome changed between two reports")
    stream.recorded(key)
    await stream.applied()
    stream = await bench.again()
    again = {attempt_of(each.key) for each in stream.hello.held}
    claim(attempt_of(key) not in again, "Hello still names an outcome that is recorded")
    bench.happened(marker, 1)


async def once(bench: Bench) -> None:
    """The same Assign while it runs, when it is done, and when it is recorded."""
    stream, key, marker = await bench.stream(), bench.key(), bench.marker("once")
    bench.witness.hold(marker)
    await stream.assign(key, noop(marker))
    await bench.witness.sees(marker)
    await stream.assign(key, noop(marker))
    stands_at(await stream.answer(key), pb.HELD_STATE_RUNNING)
    bench.witness.let(marker)
    ended_well(await stream.result(key))
    await stream.assign(key, noop(marker))
    answer = outcome_of(await stream.answer(key))
    claim(answer.status == act.OUTCOME_STATUS_OK, "a known key was not answered by its recorded outcome")
    stream.recorded(key)
    await stream.assign(key, noop(marker))
    stands_at(await stream.answer(key), pb.HELD_STATE_RELEASED)
    bench.happened(marker, 1)


async def other_action(bench: Bench) -> None:
    """Another action under a key that runs, and under one that is done."""
    stream, key, marker = await bench.stream(), bench.key(), bench.marker("first")
    bench.witness.hold(marker)
    await stream.assign(key, noop(marker))
    await bench.witness.sees(marker)
    other = bench.marker("other")
    await stream.assign(key, noop(other))
    refused(await stream.result(key), "DIGEST_MISMATCH")
    bench.witness.let(marker)
    ended_well(await stream.result(key))
    await stream.assign(key, noop(other))
    refused(await stream.result(key), "DIGEST_MISMATCH")
    bench.happened(marker, 1)
    bench.happened(other, 0)


async def inspected(bench: Bench) -> None:
    """At each station of one attempt."""
    stream, key, marker = await bench.stream(), bench.key(), bench.marker("inspected")
    stream.inspect(key)
    stands(await stream.state(key), pb.HELD_STATE_NEVER_BEGUN)
    bench.witness.hold(marker)
    await stream.assign(key, noop(marker))
    await bench.witness.sees(marker)
    stream.inspect(key)
    stands(await stream.state(key), pb.HELD_STATE_RUNNING)
    bench.witness.let(marker)
    outcome = (await stream.result(key)).outcome
    stream.inspect(key)
    state = await stream.state(key)
    stands(state, pb.HELD_STATE_DONE)
    claim(state.outcome == outcome, "StepState brings another outcome than the result")
    stream.recorded(key)
    stream.inspect(key)
    stands(await stream.state(key), pb.HELD_STATE_RELEASED)


async def beats(bench: Bench) -> None:
    """As often as Welcome asked for, with what runs."""
    stream, key, marker = await bench.again(Terms(heartbeat=0.2)), bench.key(), bench.marker("beat")
    bench.witness.hold(marker)
    await stream.assign(key, noop(marker))
    await bench.witness.sees(marker)
    wanted = attempt_of(key)

    def names_it(frame: pb.ControlRequest) -> bool:
        return wanted in map(attempt_of, frame.heartbeat.running)

    await stream.expect("heartbeat", names_it, what="a Heartbeat that names what runs")
    bench.witness.let(marker)
    ended_well(await stream.result(key))
    await stream.expect("heartbeat", lambda frame: not names_it(frame), what="a Heartbeat without what has ended")


async def run_ended(bench: Bench) -> None:
    """Kept until then, across a stream; forgotten after it."""
    stream, key, marker = await bench.stream(), bench.key(), bench.marker("ended")
    await stream.assign(key, noop(marker))
    ended_well(await stream.result(key))
    stream.recorded(key)
    await stream.applied()
    stream = await bench.again()
    stream.inspect(key)
    stands(await stream.state(key), pb.HELD_STATE_RELEASED)
    stream.end_run(key.run_id)
    stream.inspect(key)
    stands(await stream.state(key), pb.HELD_STATE_NEVER_BEGUN)


async def ended_by_welcome(bench: Bench) -> None:
    """A run that ended while the worker was away."""
    stream, key, marker = await bench.stream(), bench.key(), bench.marker("away")
    await stream.assign(key, noop(marker))
    ended_well(await stream.result(key))
    stream = await bench.again(Terms(ended_runs=(key.run_id,)))
    stream.inspect(key)
    stands(await stream.state(key), pb.HELD_STATE_NEVER_BEGUN)
    await stream.stays_quiet("step_result", key, why="for a run that Welcome said is over")


async def ended_begins_nothing(bench: Bench) -> None:
    """An Assign that the end of its run has overtaken."""
    stream, key, marker = await bench.stream(), bench.key(), bench.marker("overtaken")
    stream.end_run(key.run_id)
    await stream.assign(key, noop(marker))
    refused(await stream.result(key), "RUN_ENDED")
    bench.happened(marker, 0)


CHECKS = (
    Check("step", "Assign is answered by StepAccepted once it is journalled, and by StepResult once it is done.", step),
    Check("credits-return", "Room that steps took is offered again by Credit when they have ended.", credits_return),
    Check(
        "held-until-recorded", "An outcome is kept, and told on every new stream, until ResultRecorded.", result_held
    ),
    Check("executes-once", "A known key is answered by what the journal says of it and never executes again.", once),
    Check("other-action-refused", "The same key with another action's digest is refused.", other_action),
    Check("inspect", "Inspect is answered by what the journal knows: never begun, running, done, released.", inspected),
    Check("heartbeat", "Heartbeats come as often as Welcome asks and name what runs.", beats),
    Check("run-ended", "Keys are kept until the run is over, and forgotten then.", run_ended),
    Check(
        "welcome-ends-runs", "Runs that Welcome names as over are forgotten, unreported outcomes too.", ended_by_welcome
    ),
    Check(
        "ended-run-begins-nothing",
        "After RunEnded nothing of that run begins, an Assign that was overtaken included.",
        ended_begins_nothing,
        required=False,
    ),
)
