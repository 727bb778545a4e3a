"""One stream with the control plane, from Hello to its end: agrees on what is held, asks for work, beats, obeys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from execution import wire
from execution.attempts import AttemptKey, Record, State
from execution.blobs import Store
from execution.joints import Joint
from execution.journal import Journal
from execution.parts import Parts
from execution.steps import Steps
from execution.stream import ControlStream
from execution.vitals import Vitals
from infra.log import event_logger
from skyagent.execution.v1 import worker_service_pb2 as pb

PROTOCOL_VERSION: Final = 2
MAX_RESIDENT_RUNS: Final = 4096  # the contract's bound; the next Hello names the next ones
LET_GO_OF_EACH_RUN: Final = 8  # a log that was set back lacks the last ones first
MAX_LET_GO: Final = 1024
MAX_UNRELEASED: Final = 2048  # outcomes that nobody records; then no more work is asked for

log = event_logger(__name__)


@dataclass(frozen=True, slots=True)
class Introduction:
    """Who the worker is and what it can do: the part of Hello that is the same for the life of a process."""

    worker_id: str
    incarnation_id: str
    journal_id: str
    kind: str
    actions: tuple[str, ...]
    labels: Mapping[str, str]
    capacity: int
    version: str

    def hello(self, held: list[Record], resident_runs: list[str], let_go: list[Record]) -> pb.Hello:
        """The whole of it."""
        return pb.Hello(
            worker_id=self.worker_id,
            incarnation_id=self.incarnation_id,
            journal_id=self.journal_id,
            capabilities=pb.Capabilities(
                kind=self.kind,
                actions=self.actions,
                labels=self.labels,
                max_concurrent_steps=self.capacity,
                resident_runs=resident_runs[:MAX_RESIDENT_RUNS],
                version=self.version,
            ),
            held=map(wire.held_step, held),
            protocol_version=PROTOCOL_VERSION,
            released=[wire.step_key(record.key, record.fence) for record in let_go],
        )


class Session:
    """`open`, then `run` until the stream ends.

    `on_drain` is told when the control plane wants the worker to leave, `on_alternates` where else it may dial.
    """

    def __init__(
        self,
        parts: Parts,
        steps: Steps,
        stream: ControlStream,
        store: Store,
        on_drain: Callable[[pb.Drain], None],
        on_alternates: Callable[[Sequence[str]], None],
    ) -> None:
        self._parts = parts
        self._steps = steps
        self._stream = stream
        self._store = store
        self._on_drain = on_drain
        self._on_alternates = on_alternates
        self._vitals = Vitals(parts.clock)
        self._heartbeat_interval = 0.0
        self._capacity = 0
        self._credit = 0
        self._taking = True

    async def open(self, introduction: Introduction) -> None:
        """Hello and Welcome; then everything that the control plane may not know is told again."""
        parts = self._parts
        held = await parts.journal.submit(Journal.unreleased)
        let_go = await parts.journal.submit(lambda journal: journal.let_go(LET_GO_OF_EACH_RUN, MAX_LET_GO))
        resident = await self._resident_runs()
        asked_at = parts.clock.monotonic()
        welcome = await self._stream.greet(introduction.hello(held, resident, let_go))
        log.info("worker.connected", node=welcome.node_id, session=welcome.session_id, held=len(held))
        parts.lease.grant(asked_at, welcome.lease_ttl.ToTimedelta().total_seconds())
        parts.uplink.connect(self._stream, self._store)
        self._heartbeat_interval = welcome.heartbeat_interval.ToTimedelta().total_seconds()
        self._capacity = introduction.capacity
        await self._reconcile(set(welcome.ended_runs))

    async def run(self) -> None:
        """Until the stream ends. Raises what ended it."""
        self._stream.offer(pb.ControlRequest(inventory=self._parts.executor.inventory()))
        self.top_up()
        beating = self._parts.group.create_task(self._beat())
        try:
            await self._stream.converse(self._apply, self._sent)
        finally:
            beating.cancel()

    def top_up(self) -> None:
        """Asks for as much work as there is room for, a quarter of all room at a time: a frame a step would be many."""
        room = self._capacity - len(self._steps) - self._credit
        if self._taking and room * 4 >= self._capacity and self._parts.uplink.unreleased < MAX_UNRELEASED:
            self._credit += room
            self._stream.send(pb.ControlRequest(credit=pb.Credit(steps=room)))

    def close_intake(self) -> None:
        """Asks for no more work."""
        self._taking = False

    async def leave(self, reason: str) -> None:
        """Says Goodbye and returns when the control plane has ended the stream."""
        self._stream.send(pb.ControlRequest(goodbye=pb.Goodbye(reason=reason)))
        await self._stream.finish()

    def end(self) -> None:
        """Ends the stream now."""
        self._stream.close()

    async def _resident_runs(self) -> list[str]:
        """Runs that have anything here, be it only keys: Welcome says which of them are over."""
        sessions = (session.run_id for session in self._parts.executor.inventory().sessions)
        return list(dict.fromkeys([*sessions, *await self._parts.journal.submit(Journal.run_ids)]))

    async def _reconcile(self, ended_runs: set[str]) -> None:
        for run_id in ended_runs:
            self._parts.group.create_task(self._end_run(run_id))
        # Read anew: what ended between Hello and Welcome found no stream to be told by.
        for record in await self._parts.journal.submit(Journal.unreleased):
            if record.state is not State.BEGUN and record.key.run_id not in ended_runs:
                self._parts.uplink.tell_again(record)

    async def _beat(self) -> None:
        while True:
            await self._parts.clock.sleep(self._heartbeat_interval)
            if not self._parts.lease.alive:
                log.warning("worker.lease_ended")
                self._stream.close()  # the other side is silent: dial again
                return
            self._stream.send(pb.ControlRequest(heartbeat=self._heartbeat()))
            self._stream.offer(pb.ControlRequest(inventory=self._parts.executor.inventory()))

    def _heartbeat(self) -> pb.Heartbeat:
        keys = self._steps.keys()
        self._parts.lease.claim([wire.key_of(key) for key in keys])
        children = (process.pid for process in self._parts.executor.inventory().processes)
        return pb.Heartbeat(
            running=keys, cpu=self._vitals.processor_share(), memory_bytes=self._vitals.memory_bytes(children)
        )

    def _sent(self, frame: pb.ControlRequest) -> None:
        if frame.HasField("step_result"):
            self._parts.joints.reach(Joint.SENT, wire.key_of(frame.step_result.key))

    def _apply(self, frame: pb.ControlResponse) -> None:
        match frame.WhichOneof("frame"):
            case "assign" | "cancel" | "inspect" as kind if fault := wire.fault_of(_key_of(frame)):
                # Such a key cannot be answered either: the answer would break the contract, too.
                log.error("worker.frame_invalid", frame=kind, fault=fault)
            case "assign":
                self._parts.joints.reach(
                    Joint.ASSIGNED, wire.key_of(frame.assign.key), frame.assign.action.effect_class
                )
                self._credit = max(0, self._credit - 1)
                self._steps.assign(frame.assign)
            case "cancel":
                self._steps.cancel(frame.cancel)
            case "inspect":
                self._steps.inspect(frame.inspect.key)
            case "renewed":
                self._renewed(frame.renewed)
            case "result_recorded":
                self._parts.joints.reach(Joint.RECORDED, wire.key_of(frame.result_recorded.key))
                self._parts.group.create_task(self._release(wire.key_of(frame.result_recorded.key)))
            case "result_refused":
                self._parts.group.create_task(self._tell_again(wire.key_of(frame.result_refused.key)))
            case "run_ended":
                self._parts.group.create_task(self._end_run(frame.run_ended.run_id))
            case "drain" | "alternates":
                self._look_elsewhere(frame)
            case _:
                pass  # a frame of a later protocol version

    def _look_elsewhere(self, frame: pb.ControlResponse) -> None:
        if frame.HasField("drain"):
            self._on_drain(frame.drain)
        else:
            self._on_alternates(frame.alternates.addresses)

    def _renewed(self, renewed: pb.Renewed) -> None:
        keys = [wire.key_of(key) for key in renewed.leases]
        unanswered = [wire.key_of(key) for key in renewed.unanswered]
        ttl = renewed.lease_ttl.ToTimedelta().total_seconds()
        self._steps.revoke(self._parts.lease.renew(keys, ttl, unanswered))

    async def _release(self, key: AttemptKey) -> None:
        if await self._parts.journal.submit(lambda journal: journal.release(key)):
            self._parts.uplink.let_go(key)
            await self._parts.spool.drop(key)
            self.top_up()

    async def _tell_again(self, key: AttemptKey) -> None:
        """The control plane has not got what an outcome names: that is stored, and the result told, once more."""
        record = await self._parts.journal.submit(lambda journal: journal.find(key))
        if record is not None and record.state is not State.BEGUN:
            self._parts.uplink.tell(record)

    async def _end_run(self, run_id: str) -> None:
        await self._steps.stop_run(run_id)
        await self._parts.journal.submit(lambda journal: journal.end_run(run_id))
        self._parts.uplink.let_go_run(run_id)
        await self._parts.spool.drop_run(run_id)
        try:
            await self._parts.executor.end_run(run_id)
        except Exception as failure:  # noqa: BLE001  # a session that does not close must not end the worker
            log.error("worker.run_not_ended", run_id=run_id, error=failure)  # noqa: TRY400  # it adds the traceback


def _key_of(frame: pb.ControlResponse) -> pb.StepKey:
    if frame.HasField("assign"):
        return frame.assign.key
    return frame.cancel.key if frame.HasField("cancel") else frame.inspect.key
