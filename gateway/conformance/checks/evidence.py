"""Evidence: stored by digest before the result that names it."""

from __future__ import annotations

from gateway.conformance.actions import noop
from gateway.conformance.bench import Bench
from gateway.conformance.checks.claims import claim, ended_well
from gateway.conformance.verdicts import Check
from infra.digest import digest_of
from skyagent.execution.v1 import worker_service_pb2 as pb

LARGE = 1_500_000  # bytes: more than one message of PutBlob holds


async def before_result(bench: Bench) -> None:
    """The store fails at first; then it takes what is offered."""
    stream, key, marker = await bench.stream(), bench.key(), bench.marker("evidence")
    evidence = (marker * (LARGE // len(marker) + 1))[:LARGE]
    bench.witness.answer(marker, evidence)
    bench.plane.forget_puts()
    bench.plane.stores = False
    await stream.assign(key, noop(marker))
    await bench.plane.put_tried()
    await stream.stays_quiet("step_result", key, why="before its evidence was stored")
    bench.plane.stores = True
    result = await stream.result(key)
    ended_well(result)
    digests = [blob.digest for blob in result.outcome.blobs]
    claim(digest_of(evidence) in digests, "the result does not name what the witness answered as a blob")
    missing = [digest for digest in digests if digest not in bench.plane.blobs]
    claim(not missing, f"the result names {', '.join(missing)}, which was not stored before")


async def again(bench: Bench) -> None:
    """The control plane has lost it: ResultRefused."""
    stream, key, marker = await bench.stream(), bench.key(), bench.marker("refused")
    bench.witness.answer(marker, marker)
    await stream.assign(key, noop(marker))
    result = await stream.result(key)
    wanted = digest_of(marker)
    claim([blob.digest for blob in result.outcome.blobs] == [wanted], "the result does not name its evidence")
    bench.plane.forget_puts()
    stream.send(pb.ControlResponse(result_refused=pb.ResultRefused(key=key, missing=[wanted])))
    once_more = await stream.result(key)
    claim(once_more.outcome == result.outcome, "the outcome changed between two reports")
    claim(wanted in bench.plane.blobs, "the result came again before what it lacked was stored again")
    stream.send(pb.ControlResponse(result_refused=pb.ResultRefused(key=key)))
    last = await stream.result(key)  # nothing is missing: whoever has to record it did not get it
    claim(last.outcome == result.outcome, "the outcome changed between two reports")
    bench.happened(marker, 1)


CHECKS = (
    Check("evidence-first", "A result is sent only when every blob that it names is stored.", before_result),
    Check("result-refused", "After ResultRefused the evidence is stored and the result told once more.", again),
)
