"""Where a worker can be made to die on purpose: the seam for fault injection, and nothing else.

At each joint of a step's life a crash leaves something different behind, so each is tried. In production every joint is
an empty call.
"""

from __future__ import annotations

import os
import signal
from enum import StrEnum
from typing import Protocol

from infra.errors import InvalidArgument, Violation


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

    def reach(self, joint: Joint) -> None: ...


class NoJoints:
    """The worker of everyday life: a joint is passed and nothing happens."""

    def reach(self, joint: Joint) -> None:
        pass


class KillAt:
    """Ends this very process, as `kill -9` would, when a joint is reached for the nth time."""

    def __init__(self, joint: Joint, nth: int = 1) -> None:
        self._joint = joint
        self._left = nth

    def reach(self, joint: Joint) -> None:
        if joint is not self._joint:
            return
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def joints_at(crash_at: str) -> Joints:
    """Reads "begun" or "begun:3"; the empty text means none. Raises InvalidArgument for any other text."""
    if not crash_at:
        return NoJoints()
    name, _, nth = crash_at.partition(":")
    if name not in set(Joint) or not (nth or "1").isdecimal():
        known = ", ".join(Joint)
        raise InvalidArgument(
            Violation("crash_at", f"{crash_at!r} is not a joint: give one of {known}, with `:n` if you like")
        )
    return KillAt(Joint(name), int(nth or 1))
