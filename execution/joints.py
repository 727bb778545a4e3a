"""Where a worker can be made to die on purpose: the seam for fault injection, and nothing else.

At each joint of a step's life a crash leaves something different behind, so each is tried. In production every joint is
an empty call.
"""

from __future__ import annotations

import os
import signal
from enum import StrEnum
from typing import Protocol

from execution.attempts import AttemptKey
from infra.errors import InvalidArgument, Violation
from skyagent.execution.v1 import effect_pb2

_EFFECT_CLASSES = {
    name.removeprefix("EFFECT_CLASS_").lower(): number for name, number in effect_pb2.EffectClass.items() if number
}


class Joint(StrEnum):
    """A point between two durable facts of a step's life."""

    ASSIGNED = "assigned"  # received, nothing journalled
    BEGUN = "begun"  # journalled as begun, the effect not started
    EFFECT = "effect"  # the effect happened, its outcome is not journalled
    JOURNALLED = "journalled"  # the outcome is journalled and not sent
    SENT = "sent"  # the result was handed to the network
    RECORDED = "recorded"  # the control plane said that it is recorded; not released yet


class Joints(Protocol):
    """What is told when a joint is reached."""

    def reach(self, joint: Joint, key: AttemptKey, effect_class: int = 0) -> None:
        """An attempt is at a joint. Its effect class is told at the first one, `assigned`."""
        ...


class NoJoints:
    """The worker of everyday life: a joint is passed and nothing happens."""

    def reach(self, joint: Joint, key: AttemptKey, effect_class: int = 0) -> None:
        pass


class KillAt:
    """Ends this very process, as `kill -9` would, when a joint is reached for the nth time.

    Given an effect class, only attempts of that class count, of those that were assigned to this process.
    """

    def __init__(self, joint: Joint, nth: int = 1, effect_class: int = 0) -> None:
        self._joint = joint
        self._left = nth
        self._wanted = effect_class
        self._classes: dict[AttemptKey, int] = {}

    def reach(self, joint: Joint, key: AttemptKey, effect_class: int = 0) -> None:
        if effect_class:
            self._classes[key] = effect_class
        if joint is not self._joint or (self._wanted and self._classes.get(key) != self._wanted):
            return
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def joints_at(crash_at: str) -> Joints:
    """Reads "begun", "begun:3" or "begun@once:3"; the empty text means none. Raises InvalidArgument for other texts."""
    if not crash_at:
        return NoJoints()
    where, _, nth = crash_at.partition(":")
    name, _, effect = where.partition("@")
    if name not in set(Joint) or not (nth or "1").isdecimal() or (effect and effect not in _EFFECT_CLASSES):
        known, classes = ", ".join(Joint), ", ".join(_EFFECT_CLASSES)
        hint = f"give one of {known}, with `@class` ({classes}) and `:n` if you like"
        raise InvalidArgument(Violation("crash_at", f"{crash_at!r} is not a joint: {hint}"))
    return KillAt(Joint(name), int(nth or 1), _EFFECT_CLASSES.get(effect, 0))
