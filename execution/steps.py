"""The attempts that are assigned to this process: each from Assign to its journalled outcome.

An attempt waits its turn in memory (queued), is journalled as begun, executes, and ends. Queued means that nothing is
known of it anywhere else, so it can be dropped; from begun on, only the journal says what became of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from execution import wire
from execution.admission import Admission, begin_until
from execution.attempts import AttemptKey, Begun, Fence, Known, Record, Refusal, Refused
from execution.blobs import AttemptBlobs
from execution.executor import Assignment
from execution.joints import Joint
from execution.journal import Journal
from execution.parts import Parts
from infra.log import event_logger
from skyagent.execution.v1 import action_pb2, effect_pb2
from skyagent.execution.v1 import worker_service_pb2 as pb
from skyagent.execution.v1.action_pb2 import Outcome

log = event_logger(__name__)


@dataclass(slots=True, eq=False)
class Step:
    """One attempt in this process."""

    key: AttemptKey
    fence: Fence
    assign: pb.Assign
    until: float | None  # on the monotonic clock: after this it may not begin
    task: asyncio.Task[None] = field(init=False)
    queued: bool = True
    stopped: str | None = None  # why, once it shall end
    execution: asyncio.Task[Outcome] | None = None

    @property
    def wire_key(self) -> pb.StepKey:
        return wire.step_key(self.key, self.fence)


class Steps:
    """All of them, and the order in which they run. `on_freed` is called whenever one has left."""

    def __init__(self, parts: Parts, capacity: int, on_freed: Callable[[], None]) -> None:
        self._parts = parts
        self._on_freed = on_freed
        self._admission = Admission(parts.executor, parts.lease, parts.clock)
        self._slots = asyncio.Semaphore(capacity)
        self._sessions: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._active: dict[AttemptKey, Step] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._active)

    def keys(self) -> list[pb.StepKey]:
        """What is queued or runs here."""
        return [step.wire_key for step in self._active.values()]

    def assign(self, assign: pb.Assign) -> None:
        """Takes an attempt; what becomes of it is told by the uplink."""
        key, fence = wire.key_of(assign.key), wire.fence_of(assign.key)
        known = self._active.get(key)
        if known is None:
            step = Step(key, fence, assign, begin_until(assign, self._parts.clock))
            self._active[key] = step
            self._idle.clear()
            self._follow(step, self._live(step))
        elif known.assign.action_digest == assign.action_digest:
            self.inspect(assign.key)
        else:
            other = wire.other_action(effect_pb2.EFFECT_UNKNOWN, known.assign.action_digest, assign.action_digest)
            self._say_result(assign.key, other, known.assign.action_digest)

    def cancel(self, cancel: pb.Cancel) -> None:
        """Ends an attempt, or makes sure that it never starts; the answer is its result in either case."""
        known = self._active.get(wire.key_of(cancel.key))
        if known is None:
            self._parts.group.create_task(self._prevent(cancel))
        elif wire.fence_of(cancel.key) < known.fence:
            self.inspect(cancel.key)
        else:
            self._stop(known, cancel.reason, cancel.grace.ToTimedelta().total_seconds())

    def inspect(self, key: pb.StepKey) -> None:
        """Tells what is known, to an owner whose fence binds from now on."""
        known = self._active.get(wire.key_of(key))
        if known is not None:
            known.fence = max(known.fence, wire.fence_of(key))
        self._parts.group.create_task(self._tell_state(key))

    def revoke(self, keys: Collection[AttemptKey]) -> None:
        """These are not the worker's any more: what has not begun does not begin."""
        for step in self._queued():
            if step.key in keys:
                self._withdraw(step, wire.refused("LEASE_ENDED", "the lease of this step was not renewed"))

    def drop_queued(self) -> None:
        """Their stream is gone: the next Hello says so by not naming them, and they can be assigned again."""
        for step in self._queued():
            step.task.cancel()

    def close(self) -> None:
        """Nothing begins any more; what runs goes on."""
        self._admission.close()
        for step in self._queued():
            self._withdraw(step, wire.refused("DRAINING", "the worker is stopping: assign this to another"))

    def stop_all(self, reason: str) -> None:
        for step in list(self._active.values()):
            self._stop(step, reason, 0)

    async def stop_run(self, run_id: str) -> None:
        """Stops what a run still has here and returns when that has ended."""
        steps = [step for step in self._active.values() if step.key.run_id == run_id]
        for step in steps:
            self._stop(step, "the run has ended", 0)
        if steps:
            await asyncio.wait([step.task for step in steps])

    async def idle(self) -> None:
        """Returns when nothing is queued and nothing runs."""
        await self._idle.wait()

    def _queued(self) -> list[Step]:
        return [step for step in self._active.values() if step.queued]

    def _follow(self, step: Step, life: Coroutine[object, object, None]) -> None:
        step.task = self._parts.group.create_task(life)
        step.task.add_done_callback(lambda task: self._left(step, task))

    def _left(self, step: Step, task: asyncio.Task[None]) -> None:
        if step.task is not task:
            return  # it was withdrawn, and the task that refuses it goes on
        del self._active[step.key]
        if not self._active:
            self._idle.set()
        self._on_freed()

    def _stop(self, step: Step, reason: str, grace: float) -> None:
        if step.queued:
            self._withdraw(step, wire.cancelled(effect_pb2.EFFECT_NONE, reason))
            return
        step.stopped = reason
        if step.execution is None:
            return  # it is being journalled, and looks at `stopped` before it acts
        if grace <= 0:
            step.execution.cancel()
            return
        timer = self._parts.group.create_task(self._stop_later(step.execution, grace))
        step.execution.add_done_callback(lambda _: timer.cancel())

    async def _stop_later(self, execution: asyncio.Task[Outcome], grace: float) -> None:
        await self._parts.clock.sleep(grace)
        execution.cancel()

    def _withdraw(self, step: Step, outcome: Outcome) -> None:
        waiting, step.queued = step.task, False
        self._follow(step, self._refuse(step, outcome))
        waiting.cancel()

    async def _live(self, step: Step) -> None:
        async with self._session(step), self._slots:
            # No await from here to the journal's queue: a Hello made meanwhile either finds it queued or finds its row.
            step.queued = False
            await self._attempt(step)

    def _session(self, step: Step) -> asyncio.Lock:
        name = wire.session_of(step.key.run_id, step.assign.action)
        return asyncio.Lock() if name is None else self._sessions.setdefault(name, asyncio.Lock())

    async def _attempt(self, step: Step) -> None:
        objection = self._admission.objection(step.assign, step.until)
        if objection is not None:
            await self._refuse(step, objection)
            return
        match await self._parts.journal.submit(lambda journal: self._begin(step, journal)):
            case Begun(record):
                await self._carry_out(step, record)
            case Known(record):
                self._parts.uplink.tell(record)
            case Refused() as refused:
                self._tell_refused(step, refused)

    def _begin(self, step: Step, journal: Journal) -> Begun | Known | Refused:
        assign = step.assign
        answer = journal.begin(step.key, step.fence, assign.action_digest, assign.action.effect_class)
        if not isinstance(answer, Refused) or answer.reason is not Refusal.STALE_ATTEMPT:
            return answer
        stale = wire.refused("STALE_ATTEMPT", f"a later attempt than {step.key.attempt} of this step is known")
        entombed = self._entomb(step, stale, journal)
        return entombed if isinstance(entombed, Refused) else Known(entombed)

    async def _refuse(self, step: Step, outcome: Outcome) -> None:
        answer = await self._parts.journal.submit(lambda journal: self._entomb(step, outcome, journal))
        if isinstance(answer, Refused):
            self._tell_refused(step, answer)
        else:
            self._parts.uplink.tell(answer)

    def _entomb(self, step: Step, outcome: Outcome, journal: Journal) -> Record | Refused:
        return journal.entomb(
            step.key,
            step.fence,
            self._at_once(outcome),
            action_digest=step.assign.action_digest,
            effect_class=step.assign.action.effect_class,
        )

    async def _prevent(self, cancel: pb.Cancel) -> None:
        key, fence = wire.key_of(cancel.key), wire.fence_of(cancel.key)
        outcome = wire.cancelled(effect_pb2.EFFECT_NONE, cancel.reason)
        answer = await self._parts.journal.submit(lambda journal: journal.entomb(key, fence, self._at_once(outcome)))
        if not isinstance(answer, Refused):
            self._parts.uplink.tell(answer)
        elif answer.reason is Refusal.RUN_ENDED:
            self._say_result(cancel.key, outcome, "")
        else:
            self._say_never_begun(cancel.key)

    async def _tell_state(self, key: pb.StepKey) -> None:
        record = await self._parts.journal.submit(lambda journal: journal.inspect(wire.key_of(key), wire.fence_of(key)))
        if record is not None:
            self._parts.uplink.say(pb.ControlRequest(step_state=wire.step_state(record)))
        elif queued := self._active.get(wire.key_of(key)):
            state = pb.StepState(key=queued.wire_key, state=pb.HELD_STATE_RUNNING)
            self._parts.uplink.say(pb.ControlRequest(step_state=state))
        else:
            self._say_never_begun(key)

    def _tell_refused(self, step: Step, refused: Refused) -> None:
        digest = step.assign.action_digest
        if refused.reason is Refusal.RUN_ENDED:
            self._say_result(step.wire_key, wire.refused("RUN_ENDED", "the run has ended"), digest)
        elif refused.record is not None:
            known = refused.record
            other = wire.other_action(wire.known_effect(known), known.action_digest, digest)
            self._say_result(step.wire_key, other, known.action_digest)
        else:
            # An owner that was overtaken gets no result: it would settle the attempt of the present owner.
            self._say_never_begun(step.wire_key)

    def _say_result(self, key: pb.StepKey, outcome: Outcome, action_digest: str) -> None:
        result = pb.StepResult(key=key, outcome=outcome, action_digest=action_digest)
        self._parts.uplink.say(pb.ControlRequest(step_result=result))

    def _say_never_begun(self, key: pb.StepKey) -> None:
        state = pb.StepState(key=key, state=pb.HELD_STATE_NEVER_BEGUN)
        self._parts.uplink.say(pb.ControlRequest(step_state=state))

    def _at_once(self, outcome: Outcome) -> bytes:
        now = self._parts.clock.now_ms()
        return wire.timed(outcome, now, now).SerializeToString()

    async def _carry_out(self, step: Step, record: Record) -> None:
        parts = self._parts
        parts.joints.reach(Joint.BEGUN, step.key)
        parts.uplink.say(pb.ControlRequest(step_accepted=pb.StepAccepted(key=step.wire_key)))
        outcome = wire.sealed(await self._traced(step), record.effect_class)
        parts.joints.reach(Joint.EFFECT, step.key)
        journalled = wire.timed(outcome, record.begun_ms, parts.clock.now_ms()).SerializeToString()
        done = await parts.journal.submit(lambda journal: journal.finish(step.key, journalled))
        parts.joints.reach(Joint.JOURNALLED, step.key)
        parts.uplink.tell(done)

    async def _traced(self, step: Step) -> Outcome:
        name = "+".join(dict.fromkeys(wire.action_names(step.assign.action)))
        parent = step.assign.traceparent or None
        with self._parts.telemetry.step_span(step.key.run_id, name, parent=parent, attempt=step.key.attempt) as span:
            outcome = await self._outcome(step)
            if outcome.status != action_pb2.OUTCOME_STATUS_OK:
                span.fail(outcome.reason or outcome.message)
            return outcome

    async def _outcome(self, step: Step) -> Outcome:
        # Journalling took time, and this process may have been frozen meanwhile.
        if step.stopped is not None:
            return wire.cancelled(effect_pb2.EFFECT_NONE, step.stopped)
        if lapse := self._admission.lapse(step.key):
            return lapse
        step.execution = self._parts.group.create_task(self._execute(step))
        await asyncio.wait([step.execution])
        if step.execution.cancelled():  # before its first line ran
            return wire.cancelled(effect_pb2.EFFECT_NONE, step.stopped or "the worker is stopping")
        return step.execution.result()

    async def _execute(self, step: Step) -> Outcome:
        effect = wire.unknown_effect(step.assign.action.effect_class)
        blobs = AttemptBlobs(step.key, self._parts.spool, self._parts.uplink.store)
        try:
            return await self._parts.executor.execute(
                self._assignment(step), blobs, lambda line: self._progress(step, line)
            )
        except asyncio.CancelledError:
            return wire.cancelled(effect, step.stopped or "the worker is stopping")
        except Exception as failure:  # noqa: BLE001  # whatever an executor raises is that step's failure
            log.error(  # noqa: TRY400  # it adds the traceback
                "worker.step_failed", run_id=step.key.run_id, step_id=step.key.step_id, error=failure
            )
            return wire.failed(effect, "WORKER_ERROR", f"the worker failed: {type(failure).__name__}: {failure}"[:4096])

    def _assignment(self, step: Step) -> Assignment:
        assign = step.assign
        return Assignment(
            run_id=step.key.run_id,
            step_id=step.key.step_id,
            attempt=step.key.attempt,
            action=assign.action,
            tenant=assign.tenant,
            allowed_hosts=tuple(assign.allowed_hosts),
            deadline=step.until,
            sessions=tuple(assign.sessions),
        )

    def _progress(self, step: Step, line: str) -> None:
        progress = pb.StepProgress(key=step.wire_key, message=line[:1024])
        self._parts.uplink.mention(pb.ControlRequest(step_progress=progress))
