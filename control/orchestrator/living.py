"""Which control planes are dead: told by beats that do not rise, on the clock of the one that looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from control.journal import Node
from infra.clock import Clock


class _Seen(NamedTuple):
    beat: int
    since: float


@dataclass(slots=True)
class Living:
    """What one node has seen of the others. A clock of the database that jumps harms nothing: none is read."""

    clock: Clock
    ttl: float
    """Seconds without a rise after which a node counts as dead. It is a hint: the epoch keeps what is true."""
    _seen: dict[Node, _Seen] = field(default_factory=dict[Node, _Seen])

    def dead(self, beats: Mapping[Node, int]) -> frozenset[Node]:
        """Takes what is known of every node now; those that stood still for too long."""
        now = self.clock.monotonic()
        before, self._seen = self._seen, {}
        for node, beat in beats.items():
            known = before.get(node)
            self._seen[node] = known if known is not None and known.beat == beat else _Seen(beat, now)
        return frozenset(node for node, seen in self._seen.items() if now - seen.since >= self.ttl)
