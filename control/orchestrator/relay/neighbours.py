"""The other nodes that live, as the database tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from control.journal import Node, Pulse


@dataclass(slots=True)
class Neighbours:
    """Who they are and where they are reached; `watchers` are called when that changes."""

    me: Node
    by_node: Mapping[Node, str] = field(default_factory=dict[Node, str])
    watchers: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])

    def seen(self, living: Mapping[Node, Pulse]) -> None:
        """Takes all nodes that live now."""
        others = {node: pulse.address for node, pulse in living.items() if node != self.me and pulse.address}
        if others != self.by_node:
            self.by_node = others
            for told in self.watchers:
                told()

    @property
    def addresses(self) -> list[str]:
        """Where workers may dial instead."""
        return sorted(self.by_node.values())
