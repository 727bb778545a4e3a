"""An attempt that is intended by the same commit as the result before it: a step then costs one commit, not two.

Nothing is waited for to make it so. Where policy has to be waited for or asks a person, where no worker has room or the
run is blocked, the result is recorded alone, and the driver takes the next step as ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from control.core.check import Checks
from control.core.dispatch import next_move
from control.core.moves import Attempt
from control.core.run import RunFold
from control.orchestrator.attempts import Attempts, Ready
from skyagent.run.v1 import event_pb2 as ev


@dataclass(slots=True)
class Joining:
    """What may join one commit. It holds a credit of its worker until it is sent or the block ends."""

    attempts: Attempts
    _ready: Ready | None = None

    def events(self, folded: RunFold) -> Sequence[ev.EventBody]:
        """The decision and the intent of the next attempt; nothing when it cannot begin at once."""
        self._give_back()
        ledger = self.attempts.ledger
        move = next_move(folded, Checks(ledger.outcomes, ledger.ids.ulid), ledger.clock.now_ms())
        self._ready = self.attempts.at_once(move) if isinstance(move, Attempt) else None
        if self._ready is None:
            return ()
        self._ready.link.credits -= 1
        return self._ready.events

    def send(self) -> bool:
        """Assigns what is durable by now; whether there was anything."""
        ready, self._ready = self._ready, None
        if ready is None:
            return False
        if self.attempts.assign_intended(ready):
            return True
        ready.link.credits += 1
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()

    def _give_back(self) -> None:
        if self._ready is not None:
            self._ready.link.credits += 1
            self._ready = None
