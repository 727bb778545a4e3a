"""Whose turn it is where many wait for little: tenants by their weight, then priority, then age. Pure.

Among tenants it is start-time fair queueing (Goyal, Vin and Cheng, 1996), each turn of the same length: who was served
is put back by 1/weight, and who comes anew begins where the others are, so that nobody saves up turns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

TENANT_LIMIT = "TENANT_LIMIT"
"""The blocked reason of a run that waits until fewer runs of its tenant are under way."""


class Claimant(NamedTuple):
    """Who waits: of which tenant, and how much it matters among what that tenant has."""

    tenant: str
    priority: int = 0


class Queued(NamedTuple):
    """A run that nobody has begun."""

    run_id: str
    tenant: str


@dataclass(slots=True)
class Turns:
    """Whose turn it is among tenants. A tenant without a weight has 1."""

    weights: Mapping[str, float] = field(default_factory=dict[str, float])
    _tags: dict[str, float] = field(default_factory=dict[str, float])
    _now: float = 0.0

    def order(self, claimants: Sequence[Claimant]) -> list[int]:
        """Positions of the claimants in the order in which they are to be served, as if each were.

        They are given in the order of age.
        """
        queues: dict[str, list[int]] = {}
        for position in sorted(range(len(claimants)), key=lambda at: (-claimants[at].priority, at)):
            queues.setdefault(claimants[position].tenant, []).append(position)
        tags = {tenant: self._tag(tenant) for tenant in queues}
        ordered: list[int] = []
        while queues:
            tenant = min(queues, key=lambda one: (tags[one], queues[one][0]))
            ordered.append(queues[tenant].pop(0))
            tags[tenant] += self._step(tenant)
            if not queues[tenant]:
                del queues[tenant]
        return ordered

    def served(self, tenant: str) -> None:
        """A claimant of this tenant had its turn."""
        self._now = self._tag(tenant)
        self._tags[tenant] = self._now + self._step(tenant)
        # Whoever stands where time is has nothing that is to be remembered.
        self._tags = {one: tag for one, tag in self._tags.items() if tag > self._now}

    def yields(self, own: Claimant, other: Claimant) -> bool:
        """Whether one leaves what there is to another who waits: of another tenant to one that is behind, of its own
        to one that matters more.
        """
        if own.tenant != other.tenant:
            return self._tag(other.tenant) < self._tag(own.tenant)
        return other.priority > own.priority

    def _tag(self, tenant: str) -> float:
        return max(self._tags.get(tenant, 0.0), self._now)

    def _step(self, tenant: str) -> float:
        return 1.0 / self.weights.get(tenant, 1.0)


@dataclass(frozen=True, slots=True)
class Admission:
    """How many runs of a tenant may be under way. A run that waits for a person, or is paused, is under way."""

    most: int
    weights: Mapping[str, float] = field(default_factory=dict[str, float])

    def admitted(self, queued: Sequence[Queued], active: Mapping[str, int], room: int) -> list[str]:
        """Runs that may begin, at most `room`; `queued` is in the order of age, `active` counts those under way.

        The tenant with the least under way for its weight is first.
        """
        counts = dict(active)
        queues: dict[str, list[str]] = {}
        for run in queued:
            queues.setdefault(run.tenant, []).append(run.run_id)
        chosen: list[str] = []
        while len(chosen) < room:
            able = [tenant for tenant in queues if queues[tenant] and counts.get(tenant, 0) < self.most]
            if not able:
                break
            tenant = min(able, key=lambda one: (counts.get(one, 0) / self.weights.get(one, 1.0), queues[one][0]))
            chosen.append(queues[tenant].pop(0))
            counts[tenant] = counts.get(tenant, 0) + 1
        return chosen
