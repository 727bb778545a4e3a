"""How long a run stood still because a person wanted it so or was asked: that is not its own time."""

from __future__ import annotations

from dataclasses import dataclass

from skyagent.run.v1 import event_pb2 as ev

_STANDS_STILL = frozenset({ev.RUN_PHASE_PAUSED, ev.RUN_PHASE_WAITING})


@dataclass(slots=True)
class Idle:
    """Milliseconds, added up from the phases that the events of a run lead to."""

    ms: int = 0
    _since_ms: int = 0

    def after(self, phase: ev.RunPhase.ValueType, time_ms: int) -> None:
        """An event led to this phase at that moment."""
        still = phase in _STANDS_STILL
        if still and not self._since_ms:
            self._since_ms = time_ms
        elif not still and self._since_ms:
            self.ms, self._since_ms = self.until(time_ms), 0

    def until(self, now_ms: int) -> int:
        """Everything up to a moment."""
        return self.ms + (max(0, now_ms - self._since_ms) if self._since_ms else 0)
