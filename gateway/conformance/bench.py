"""What every check has in hand: the worker, the control plane that it dials, and the world that it acts on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from gateway.conformance.actions import attempt_of
from gateway.conformance.operator import Launcher, Operator, Place
from gateway.conformance.plane import Plane
from gateway.conformance.stream import PATIENCE, Stream, Terms
from gateway.conformance.transcript import Transcript
from gateway.conformance.verdicts import Failed
from gateway.conformance.witness import Witness
from infra.clock import Clock
from infra.ids import Ids
from skyagent.execution.v1 import worker_service_pb2 as pb

START_PATIENCE = 60.0  # seconds from starting a worker to its Hello

_T = TypeVar("_T")


@dataclass(slots=True)
class Bench:
    """One trial. Each check makes attempts of its own, so that none depends on what another left behind."""

    plane: Plane
    witness: Witness
    operator: Operator
    place: Place
    clock: Clock
    ids: Ids
    transcript: Transcript
    aftermath: Aftermath | None = None
    met: bool = False
    """Whether the worker has ever said Hello."""
    _stream: Stream | None = None
    _runs: set[str] = field(default_factory=set[str])
    _over: list[str] = field(default_factory=list[str])
    _kept: set[str] = field(default_factory=set[str])

    def key(self, of: pb.StepKey | None = None, *, attempt: int = 1, epoch: int = 1, generation: int = 0) -> pb.StepKey:
        """A new step, of a new run or of that of another."""
        run_id = of.run_id if of is not None else self.ids.ulid()
        self._runs.add(run_id)
        fence = pb.Fence(log_generation=generation, epoch=epoch)
        return pb.StepKey(run_id=run_id, step_id=self.ids.ulid(), attempt=attempt, fence=fence)

    def marker(self, name: str) -> bytes:
        """What one effect is counted by."""
        return f"{name}-{self.ids.ulid()}".encode()

    def keep(self, key: pb.StepKey) -> None:
        """The run of this attempt is still needed after this check."""
        self._kept.add(key.run_id)

    def keep_nothing(self) -> None:
        """All that was kept is over with the check that runs now."""
        self._kept.clear()

    async def stream(self) -> Stream:
        """The present stream; if there is none, the next one that the worker dials, welcomed."""
        if self._stream is None or self._stream.closing or self._stream.ended.is_set():
            return await self.meet()
        return self._stream

    async def again(self, terms: Terms = Terms()) -> Stream:  # noqa: B008 - it is frozen
        """Ends the present stream in order, and welcomes the next."""
        stream = await self.stream()
        stream.close()
        await stream.gone()
        return await self.meet(terms)

    async def restarting(self) -> Stream:
        """Another process of the worker, its Hello heard and not answered: no one has granted it a lease before."""
        await self.stream()
        await self.operator.kill()
        return await self.dialled()

    async def meet(self, terms: Terms = Terms()) -> Stream:  # noqa: B008 - it is frozen
        """Welcomes the next stream that the worker dials; starts the worker if it does not run."""
        stream = await self.dialled()
        stream.welcome(replace(terms, ended_runs=(*terms.ended_runs, *self._over)))
        return stream

    async def dialled(self) -> Stream:
        """The next stream, its Hello heard and not answered."""
        within = PATIENCE if self.met and self.operator.running else START_PATIENCE
        if not self.operator.running:
            self.plane.forget_dialled()
            self.transcript.note("the worker is started")
            await self.operator.start()
        self._stream = await self._unless_it_dies(self.plane.dialled(within))
        self.met = True
        return self._stream

    async def result_on_any_stream(self, key: pb.StepKey) -> pb.StepResult:
        """The next result, on this stream or, if that ends before, on the next."""
        stream = await self.stream()
        try:
            return await stream.result(key)
        except Failed:
            if not stream.ended.is_set():
                raise
        return await (await self.meet()).result(key)

    def happened(self, marker: bytes, times: int) -> None:
        """Failed: it did not happen so often."""
        if self.witness.count(marker) != times:
            told = f"{marker.decode()} happened {self.witness.count(marker)} times and not {times}"
            raise Failed(f"the effect was counted otherwise: {told}")

    async def tidy(self, *, failed: bool) -> None:
        """Between two checks: their runs are over; after a failure the stream is, too."""
        if failed:
            self.plane.stores, self.plane.turning_away = True, 0
            self.witness.end()
        stream = self._stream
        if stream is None or stream.ended.is_set() or stream.closing:
            return
        for run_id in self._runs - self._kept:
            stream.end_run(run_id)
            self._over.append(run_id)  # the frame may be lost with the stream, so the next Welcome says it again
        self._runs &= self._kept
        if failed:
            stream.close()

    async def _unless_it_dies(self, event: Awaitable[_T]) -> _T:
        """What is awaited; Failed at once when the worker's process ends meanwhile."""
        if not isinstance(self.operator, Launcher):
            return await event
        async with asyncio.TaskGroup() as group:
            dying = group.create_task(self.operator.died())
            awaited = group.create_task(_outcome(event))
            await asyncio.wait([dying, awaited], return_when=asyncio.FIRST_COMPLETED)
            died = not awaited.done()
            dying.cancel()
            awaited.cancel()
        if died:
            raise Failed(f"the worker ended by itself with exit code {dying.result()}")
        outcome = awaited.result()
        if isinstance(outcome, Failed):
            raise outcome
        return outcome


async def _outcome(event: Awaitable[_T]) -> _T | Failed:
    try:
        return await event
    except Failed as failure:
        return failure


@dataclass(frozen=True, slots=True)
class Aftermath:
    """What a worker was doing when it was killed, and how it introduced itself before and after."""

    before: pb.Hello
    after: pb.Hello
    released: pb.StepKey
    done: pb.StepKey
    outcome: bytes
    running: pb.StepKey
    reading: pb.StepKey
    tombstone: pb.StepKey
    overtaken: pb.StepKey
    markers: dict[str, bytes]

    def held(self, key: pb.StepKey) -> str:
        """How the Hello after it names an attempt."""
        for held in self.after.held:
            if attempt_of(held.key) == attempt_of(key):
                return pb.HeldState.Name(held.state)
        return "nothing"
