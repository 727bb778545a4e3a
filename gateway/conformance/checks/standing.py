"""What holds at every moment of a trial, looked at when it is over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gateway.conformance.bench import Bench
from gateway.conformance.verdicts import Check, Failed


def _no_fault(name: str) -> Callable[[Bench], Awaitable[None]]:
    async def check(bench: Bench) -> None:
        if faults := bench.plane.faults.by_check.get(name):
            more = f" (and {len(faults) - 1} times more)" if len(faults) > 1 else ""
            raise Failed(faults[0] + more)

    return check


async def _at_most_once(bench: Bench) -> None:
    if repeated := bench.witness.repeated():
        raise Failed(f"happened more than once: {', '.join(repeated)}")


CHECKS = (
    Check(
        "frames-in-order",
        "Frames count up by one, and acks neither run ahead nor go back.",
        _no_fault("frames-in-order"),
    ),
    Check("frames-are-valid", "Every frame keeps the rules of the contract.", _no_fault("frames-are-valid")),
    Check(
        "one-frame-for-version-1",
        "Several frames in a message only to who speaks version 2.",
        _no_fault("several-frames"),
    ),
    Check("credits-bounded", "Never more room is offered than the worker has.", _no_fault("credits")),
    Check("token", "Every call carries the worker's own token.", _no_fault("token")),
    Check("at-most-once", "In the whole trial no effect happened twice.", _at_most_once),
)
