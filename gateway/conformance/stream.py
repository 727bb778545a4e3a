"""One Control stream as its server sees it: what a check says by hand, and what it waits for.

By itself it acknowledges, renews the leases that a heartbeat names (unless told not to), counts credits, and notes
every frame that breaks the contract.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

import grpc
from google.protobuf.duration_pb2 import Duration

from gateway.conformance.actions import attempt_of
from gateway.conformance.transcript import Transcript
from gateway.conformance.verdicts import Failed
from infra.clock import Clock
from infra.digest import digest_message
from infra.errors import InvalidArgument
from infra.validation import check as validate
from skyagent.execution.v1 import worker_service_pb2 as pb
from skyagent.execution.v1.action_pb2 import Action

PATIENCE = 10.0  # seconds to wait for what has to come
QUIET = 0.3  # seconds to listen for what must not come
MANY_FRAMES = 2  # the protocol version from which on a message may carry several frames

Where = Callable[[pb.ControlRequest], bool]
Write = Callable[[pb.ControlResponse | bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Terms:
    """What Welcome says, in seconds."""

    lease_ttl: float = 30.0
    heartbeat: float = 0.5
    version: int = MANY_FRAMES
    ended_runs: tuple[str, ...] = ()


@dataclass(slots=True)
class Faults:
    """What broke a standing rule, by the name of its check."""

    by_check: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def add(self, check: str, text: str) -> None:
        self.by_check.setdefault(check, []).append(text)


class Stream:
    """From its dialling to its end."""

    def __init__(
        self, number: int, metadata: dict[str, str], clock: Clock, transcript: Transcript, faults: Faults
    ) -> None:
        self.number = number
        self.metadata = metadata
        self.dialled_at = clock.monotonic()
        self.hello = pb.Hello()
        self.welcomed = False
        self.renewing = True
        self.credits = 0
        self.said = 0
        self._terms = Terms()
        self._clock, self._transcript, self._faults = clock, transcript, faults
        self._heard = 0
        self._acked = 0
        self._unread: list[pb.ControlRequest] = []
        self._news = asyncio.Event()
        self._outbox: asyncio.Queue[pb.ControlResponse | bytes | grpc.StatusCode | None] = asyncio.Queue()
        self.closing = False
        self.ended = asyncio.Event()
        self.finished = asyncio.Event()
        """The worker has said its last frame, in order."""

    @property
    def version(self) -> int:
        """What both sides speak, as Welcome said."""
        return min(self._terms.version, self.hello.protocol_version)

    def welcome(self, terms: Terms) -> None:
        """Answers Hello."""
        self._terms, self.welcomed = terms, True
        welcome = pb.Welcome(
            session_id=f"conformance-{self.number}",
            node_id="conformance",
            heartbeat_interval=seconds(terms.heartbeat),
            lease_ttl=seconds(terms.lease_ttl),
            protocol_version=self.version,
            ended_runs=terms.ended_runs,
        )
        self.send(pb.ControlResponse(welcome=welcome))

    def send(self, frame: pb.ControlResponse) -> None:
        """Numbers a frame, and sends it in a message of its own."""
        self._outbox.put_nowait(self._numbered(frame))

    def send_together(self, frames: Sequence[pb.ControlResponse]) -> None:
        """The frames in one message."""
        first, *more = [self._numbered(frame) for frame in frames]
        first.more.extend(more)
        self._outbox.put_nowait(first)

    def send_as(self, seq: int, frame: pb.ControlResponse) -> None:
        """A frame with a number that is not its own."""
        frame.seq, frame.ack = seq, self._heard
        self._outbox.put_nowait(frame)

    def send_bytes(self, data: bytes) -> None:
        """A message that may be none."""
        self._outbox.put_nowait(data)

    async def assign(self, key: pb.StepKey, action: Action, **changes: object) -> None:
        """Assigns once the worker has room; `changes` are fields of Assign."""
        (frame,) = await self.assigns([(key, action)])
        for name, value in changes.items():
            if name == "deadline_ms":
                frame.assign.deadline.FromMilliseconds(cast("int", value))
            else:
                setattr(frame.assign, name, value)
        self.send(frame)

    async def assigns(self, attempts: Iterable[tuple[pb.StepKey, Action]]) -> list[pb.ControlResponse]:
        """Frames to be sent, each of which has taken a credit."""
        frames: list[pb.ControlResponse] = []
        for key, action in attempts:
            await self.room()
            frames.append(pb.ControlResponse(assign=self.assignment(key, action)))
        return frames

    async def room(self) -> None:
        """Returns once the worker has asked for a step."""
        await self._until(lambda: self.credits > 0, "room for a step (Credit)")

    def assignment(self, key: pb.StepKey, action: Action) -> pb.Assign:
        """As a control plane makes one for this worker; it costs a credit."""
        self.credits = max(0, self.credits - 1)
        assign = pb.Assign(key=key, action=action, action_digest=digest_message(action), decision_id="conformance")
        if self.hello.capabilities.exact_actions:
            assign.action_bytes = action.SerializeToString(deterministic=True)
        return assign

    def inspect(self, key: pb.StepKey) -> None:
        self.send(pb.ControlResponse(inspect=pb.Inspect(key=key)))

    def cancel(self, key: pb.StepKey, reason: str = "the check says so") -> None:
        self.send(pb.ControlResponse(cancel=pb.Cancel(key=key, reason=reason, grace=seconds(0))))

    def recorded(self, key: pb.StepKey) -> None:
        self.send(pb.ControlResponse(result_recorded=pb.ResultRecorded(key=key)))

    def end_run(self, run_id: str) -> None:
        self.send(pb.ControlResponse(run_ended=pb.RunEnded(run_id=run_id)))

    def close(self, status: grpc.StatusCode | None = None) -> None:
        """Ends the stream, in order or with a status."""
        self.closing = True
        self._outbox.put_nowait(status)

    async def expect(self, kind: str, where: Where = lambda _: True, *, what: str = "") -> pb.ControlRequest:
        """Takes the first frame of a kind that was not taken yet. Failed: none came, or the stream ended before."""
        found: list[pb.ControlRequest] = []

        def came() -> bool:
            found.extend(self._take(kind, where))
            return bool(found)

        await self._until(came, what or kind)
        return found[0]

    async def result(self, key: pb.StepKey) -> pb.StepResult:
        """The next result of an attempt."""
        return (await self._about(key, "step_result", what="StepResult")).step_result

    async def accepted(self, key: pb.StepKey) -> None:
        """Returns once StepAccepted has come for an attempt."""
        await self._about(key, "step_accepted", what="StepAccepted")

    async def state(self, key: pb.StepKey) -> pb.StepState:
        """The next StepState of an attempt."""
        return (await self._about(key, "step_state", what="StepState")).step_state

    async def answer(self, key: pb.StepKey) -> pb.ControlRequest:
        """The next result or state of an attempt, whichever comes first."""
        return await self._about(key, "step_result step_state", what="StepResult or StepState")

    async def stays_quiet(self, kinds: str, key: pb.StepKey, *, why: str) -> None:
        """Failed: a frame of one of those kinds came about an attempt while it was listened for."""
        await self._clock.sleep(QUIET)
        wanted = attempt_of(key)
        if frames := self._take(kinds, lambda frame: attempt_of(_key_of(frame)) == wanted):
            raise Failed(f"{frames[0].WhichOneof('frame')} came {why}")

    async def applied(self) -> None:
        """Returns once the worker has acknowledged everything that was said until now."""
        said = self.said
        await self._until(lambda: self._acked >= said, f"an acknowledgement of frame {said}")

    async def gone(self) -> None:
        """Returns once the stream is over."""
        await self._until(self.ended.is_set, "the end of the stream", even_ended=True)

    async def listen(self, requests: AsyncIterator[pb.ControlRequest]) -> None:
        """Hears until the worker has said its last; then the stream ends in order."""
        async for message in requests:
            if message.more and (not self.welcomed or self.version < MANY_FRAMES):
                self._faults.add("several-frames", f"{len(message.more)} more frames came to a side of version 1")
            for frame in (message, *message.more):
                self._hear(frame)
            self._tell()
        self._transcript.note(f"#{self.number} ← (nothing more)")
        self.finished.set()
        self.close()

    async def speak(self, write: Write) -> grpc.StatusCode | None:
        """Says what is to be said; returns the status with which the stream shall end."""
        while isinstance(said := await self._outbox.get(), pb.ControlResponse | bytes):
            if isinstance(said, pb.ControlResponse):
                self._transcript.frame(self.number, "→", said)
            else:
                self._transcript.note(f"#{self.number} → {len(said)} bytes: {said[:40].hex()}")
            await write(said)
        return said

    def end(self) -> None:
        """The call is over."""
        self._transcript.note(f"#{self.number} ended")
        self.ended.set()
        self._tell()

    async def _about(self, key: pb.StepKey, kinds: str, *, what: str) -> pb.ControlRequest:
        wanted = attempt_of(key)
        return await self.expect(kinds, lambda frame: attempt_of(_key_of(frame)) == wanted, what=what)

    def _numbered(self, frame: pb.ControlResponse) -> pb.ControlResponse:
        self.said += 1
        frame.seq, frame.ack = self.said, self._heard
        return frame

    def _hear(self, frame: pb.ControlRequest) -> None:
        self._transcript.frame(self.number, "←", frame)
        kind = cast("str", frame.WhichOneof("frame"))
        self._watch_order(frame)
        try:
            validate(frame)
        except InvalidArgument as bad:
            self._faults.add("frames-are-valid", f"{kind}: {bad.message}")
        if not self.welcomed and kind != "hello":
            self._faults.add("hello-first", f"{kind} came before Welcome was sent")
        self._unread.append(frame)
        if kind == "credit":
            self._grant(frame.credit.steps)
        elif kind == "heartbeat" and self.renewing:
            renewed = pb.Renewed(leases=frame.heartbeat.running, lease_ttl=seconds(self._terms.lease_ttl))
            self.send(pb.ControlResponse(renewed=renewed))

    def _watch_order(self, frame: pb.ControlRequest) -> None:
        if frame.seq != self._heard + 1:
            self._faults.add("frames-in-order", f"frame {frame.seq} came after frame {self._heard}")
        if frame.ack > self.said:
            self._faults.add("frames-in-order", f"ack {frame.ack} of frames that were not sent: {self.said} were")
        if frame.ack < self._acked:
            self._faults.add("frames-in-order", f"ack went back from {self._acked} to {frame.ack}")
        self._heard, self._acked = frame.seq, max(self._acked, frame.ack)

    def _grant(self, steps: int) -> None:
        self.credits += steps
        most = self.hello.capabilities.max_concurrent_steps
        if self.credits > most:
            self._faults.add("credits", f"{self.credits} steps were asked for by a worker that does {most} at once")

    def _take(self, kinds: str, where: Where) -> list[pb.ControlRequest]:
        wanted = kinds.split()
        for place, frame in enumerate(self._unread):
            if frame.WhichOneof("frame") in wanted and where(frame):
                return [self._unread.pop(place)]
        return []

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _until(self, true: Callable[[], bool], what: str, *, even_ended: bool = False) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while not true():
                    if self.ended.is_set() and not even_ended:
                        raise Failed(f"the stream ended instead of bringing {what}")
                    await self._news.wait()
        except TimeoutError:
            raise Failed(f"{what} did not come within {PATIENCE:g} s") from None


def _key_of(frame: pb.ControlRequest) -> pb.StepKey:
    if frame.HasField("step_result"):
        return frame.step_result.key
    return frame.step_state.key if frame.HasField("step_state") else frame.step_accepted.key


def seconds(value: float) -> Duration:
    """As the wire has it."""
    duration = Duration()
    duration.FromNanoseconds(round(value * 1e9))
    return duration
