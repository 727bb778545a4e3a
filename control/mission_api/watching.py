"""One watcher of a run: its journal from a point on, and live, until the run has ended or the server goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from control.journal import Journal
from control.journal.folding import event_of, folded_run
from infra.clock import Clock
from infra.errors import OutOfRange
from infra.metrics.series import Count
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import run_service_pb2 as pb

HEARTBEAT = 5.0
"""Seconds without an event after which the watcher is told that the stream is alive."""
_AHEAD = 64

Send = Callable[[pb.WatchRunResponse], Awaitable[object]]


@dataclass(slots=True)
class Watch:
    """Gapless and without duplicates. Ends with EndOfRun, with Reconnect, or by cancellation."""

    journal: Journal
    clock: Clock
    draining: asyncio.Event
    run_id: str
    tenant: str
    after_seq: int
    watchers: Count = field(default_factory=Count)
    _items: asyncio.Queue[pb.WatchRunResponse] = field(default_factory=lambda: asyncio.Queue(_AHEAD))
    _sent: int = 0

    async def send_all(self, send: Send) -> None:
        """Raises RunNotFound, RunErased, or OutOfRange for a point that the journal has not reached."""
        self.watchers.add()
        try:
            await self._send_all(send)
        finally:
            self.watchers.add(-1)

    async def _send_all(self, send: Send) -> None:
        head = await self.journal.head(self.run_id, tenant=self.tenant)
        if self.after_seq > head.head_seq:
            raise OutOfRange(
                "AFTER_SEQ_BEYOND_END",
                f"run {self.run_id} ends at event {head.head_seq}: watch after that one or an earlier one",
                head_seq=str(head.head_seq),
            )
        if head.terminal and await self.journal.erasure(self.run_id) is not None:
            await folded_run(self.journal, self.run_id)  # whoever watches folds, too
        async with asyncio.TaskGroup() as group:
            sources = [group.create_task(source()) for source in (self._events, self._heartbeats, self._goodbye)]
            while True:
                item = await self._items.get()
                await send(item)
                self._sent += 1
                if item.HasField("end") or item.HasField("reconnect"):
                    break
            for source in sources:
                source.cancel()

    async def _events(self) -> None:
        seq = self.after_seq
        if await self._ended(seq):
            return
        async with aclosing(self.journal.tail(self.run_id, after_seq=seq)) as tail:
            async for stored in tail:
                event = event_of(stored)
                await self._items.put(pb.WatchRunResponse(event=event))
                # Results that come late follow the event that ended the run.
                said = event.body
                may_be_last = event.erased or said.HasField("run_finished") or said.HasField("late_result")
                if may_be_last and await self._ended(stored.seq):
                    return

    async def _ended(self, seq: int) -> bool:
        listing = await self.journal.listing(self.run_id, tenant=self.tenant)
        head = listing.head
        if not head.terminal or seq < head.head_seq:
            return False
        phase = ev.RunPhase.Value(listing.projection.state) if listing.projection else ev.RUN_PHASE_UNSPECIFIED
        await self._items.put(pb.WatchRunResponse(end=pb.EndOfRun(phase=phase, head_seq=head.head_seq)))
        return True

    async def _heartbeats(self) -> None:
        while True:
            sent = self._sent
            await self.clock.sleep(HEARTBEAT)
            if sent == self._sent:
                head = await self.journal.head(self.run_id)
                await self._items.put(pb.WatchRunResponse(heartbeat=pb.Heartbeat(head_seq=head.head_seq)))

    async def _goodbye(self) -> None:
        await self.draining.wait()
        reason = "the server goes away: watch again with the last seq that came"
        await self._items.put(pb.WatchRunResponse(reconnect=pb.Reconnect(reason=reason)))
