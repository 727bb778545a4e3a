"""What the worker says about its attempts, and the outcomes it has not been relieved of.

With no stream it says nothing and keeps everything: what mattered is told again from the journal on the next stream.
"""

from __future__ import annotations

import asyncio

from execution.attempts import AttemptKey, Record, State
from execution.blobs import Spool, Store
from execution.stream import ControlStream
from execution.wire import outcome_of, step_result, step_state
from infra.clock import Clock
from infra.errors import DataLoss, SkyError
from infra.log import event_logger
from infra.refs import blob_refs
from skyagent.execution.v1 import worker_service_pb2 as pb

UPLOAD_RETRY = 1.0  # seconds

log = event_logger(__name__)


class Uplink:
    """The way up, whichever stream it is at the moment."""

    def __init__(self, spool: Spool, clock: Clock, group: asyncio.TaskGroup) -> None:
        self._spool = spool
        self._clock = clock
        self._group = group
        self._stream: ControlStream | None = None
        self._store: Store | None = None
        self._told: set[AttemptKey] = set()
        self._unreleased: set[AttemptKey] = set()
        self._settled = asyncio.Event()
        self._settled.set()

    @property
    def unreleased(self) -> int:
        """How many outcomes are held because the control plane has not said that they are recorded."""
        return len(self._unreleased)

    def store(self) -> Store | None:
        """The control plane's blobs, while connected."""
        return self._store

    def connect(self, stream: ControlStream, store: Store) -> None:
        self._stream, self._store = stream, store
        self._told.clear()

    def disconnect(self) -> None:
        self._stream = self._store = None

    def say(self, frame: pb.ControlRequest) -> None:
        """A frame that the next stream's Hello makes up for when it is lost."""
        if self._stream is not None:
            self._stream.send(frame)

    def mention(self, frame: pb.ControlRequest) -> None:
        """A frame that nobody misses."""
        if self._stream is not None:
            self._stream.offer(frame)

    def tell(self, record: Record) -> None:
        """What is known of an attempt: its result when there is one to report, else its state."""
        if record.state in (State.BEGUN, State.RELEASED):
            self.say(pb.ControlRequest(step_state=step_state(record)))
        else:
            self._told.add(record.key)
            self.hold(record.key)
            self._group.create_task(self._deliver(record))

    def tell_again(self, record: Record) -> None:
        """The same for a new stream, unless it was told there already."""
        if record.key not in self._told:
            self.tell(record)

    def hold(self, key: AttemptKey) -> None:
        """An outcome is journalled: it is the worker's to deliver until `let_go`."""
        self._unreleased.add(key)
        self._settled.clear()

    def let_go(self, key: AttemptKey) -> None:
        self._unreleased.discard(key)
        self._told.discard(key)
        if not self._unreleased:
            self._settled.set()

    def let_go_run(self, run_id: str) -> None:
        for key in [key for key in self._unreleased if key.run_id == run_id]:
            self.let_go(key)

    async def settled(self) -> None:
        """Returns when the control plane has everything that this worker knows."""
        await self._settled.wait()

    async def _deliver(self, record: Record) -> None:
        stream, store = self._stream, self._store
        if stream is None or store is None:
            return
        while not await self._upload(record, store):
            await self._clock.sleep(UPLOAD_RETRY)
            if self._stream is not stream:
                return
        if record.key in self._unreleased:
            stream.send(pb.ControlRequest(step_result=step_result(record)))

    async def _upload(self, record: Record, store: Store) -> bool:
        # The evidence must be readable before any event can name it.
        for ref in blob_refs(outcome_of(record)):
            try:
                data = await self._spool.get(record.key, ref.digest)
                if data is not None:
                    await store.put(ref, data)
            except DataLoss as altered:  # nothing mends it: the control plane says what it misses, and takes the rest
                log.error("worker.evidence_lost", digest=ref.digest, step_id=record.key.step_id, error=altered)  # noqa: TRY400 -- it adds the traceback
            except SkyError as failure:
                log.warning("worker.evidence_not_stored", digest=ref.digest, step_id=record.key.step_id, error=failure)
                return False
        return True
