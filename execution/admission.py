"""Whether an assigned attempt may begin: what is checked at the last moment before it is journalled."""

from __future__ import annotations

from execution import wire
from execution.attempts import AttemptKey
from execution.executor import Executor
from execution.lease import Lease
from infra.clock import Clock
from infra.digest import digest_message
from skyagent.execution.v1 import worker_service_pb2 as pb
from skyagent.execution.v1.action_pb2 import Outcome


class Admission:
    """Each objection is an outcome with status REFUSED and effect NONE; None means that it may begin."""

    def __init__(self, executor: Executor, lease: Lease, clock: Clock) -> None:
        self._clock = clock
        self._kind = executor.kind
        self._supported = frozenset(name.partition("/")[0] for name in executor.actions())
        self._lease = lease
        self._closed = False

    def close(self) -> None:
        """Nothing begins from now on: the worker is stopping."""
        self._closed = True

    def objection(self, assign: pb.Assign, until: float | None) -> Outcome | None:
        """What speaks against beginning now; `until` is what `begin_until` said at its arrival."""
        if self._closed:
            return wire.refused("DRAINING", "the worker is stopping: assign this to another")
        return self._fault(assign) or self._too_late(until) or self.lapse(wire.key_of(assign.key))

    def lapse(self, key: AttemptKey) -> Outcome | None:
        """What speaks against an effect that starts now, even after it was journalled as begun."""
        if self._lease.covers(key):
            return None
        return wire.refused("LEASE_ENDED", "the worker's lease had ended before this could begin")

    def _fault(self, assign: pb.Assign) -> Outcome | None:
        if fault := wire.fault_of(assign):
            return wire.refused("INVALID_ACTION", f"the assignment is not valid: {fault}"[:4096])
        computed = digest_message(assign.action)
        if computed != assign.action_digest:
            return wire.refused("DIGEST_MISMATCH", f"the action has digest {computed}, not {assign.action_digest}")
        if missing := sorted(set(wire.action_names(assign.action)) - self._supported):
            return wire.refused("UNSUPPORTED_ACTION", f"this {self._kind} worker cannot do {', '.join(missing)}")
        return None

    def _too_late(self, until: float | None) -> Outcome | None:
        if until is None or until > self._clock.monotonic():
            return None
        return wire.refused("DEADLINE_PASSED", "the time within which this had to begin was over")


def begin_until(assign: pb.Assign, clock: Clock) -> float | None:
    """Seconds on the monotonic clock after which an attempt that arrives now may not begin; None means no deadline.

    An owner that names only a moment is believed to have the same time: it is of an earlier version.
    """
    if assign.HasField("time_left"):
        return clock.monotonic() + assign.time_left.ToTimedelta().total_seconds()
    if not assign.HasField("deadline"):
        return None
    return clock.monotonic() + (assign.deadline.ToMilliseconds() - clock.now_ms()) / 1000
