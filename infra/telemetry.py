"""Traces: one per run, whose id is the run's own ULID, and one span per step. Off unless an OTLP endpoint is set.

A restart continues the same trace, because nothing of it is remembered: both ids follow from the run.
Off costs nothing (the OpenTelemetry SDK is not imported) and still hands out valid W3C trace contexts.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Generator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import grpc

from infra.ids import Ids, ulid_int
from infra.settings import Settings

Value = str | int | float | bool
_SPAN_MASK = (1 << 64) - 1


class Span(Protocol):
    """One step as it runs."""

    @property
    def traceparent(self) -> str:
        """W3C trace context, to be carried to whoever does the work."""
        ...

    def set(self, key: str, value: Value) -> None:
        """Note something about the step."""
        ...

    def fail(self, message: str) -> None:
        """Mark the step as failed."""
        ...


class Telemetry(Protocol):
    """What a process can tell about what it does."""

    def step_span(
        self, run_id: str, name: str, *, parent: str | None = None, **attributes: Value
    ) -> AbstractContextManager[Span]:
        """A span of a run; below `parent` (a traceparent) if given, else below the run itself."""
        ...

    def run_span(self, run_id: str, name: str, start_ms: int, end_ms: int, **attributes: Value) -> None:
        """The span of a whole run, told once, when it has ended."""
        ...

    def server_interceptors(self, unary_methods: Collection[str]) -> Sequence[grpc.aio.ServerInterceptor]:
        """Make a span of every call of these methods (full paths). Streams are not: theirs would never end."""
        ...

    def client_interceptors(self) -> Sequence[grpc.aio.ClientInterceptor]:
        """Make a span of every unary call to a peer."""
        ...


def trace_id(run_id: str) -> int:
    """The trace of a run: the 128 bits of its ULID."""
    return ulid_int(run_id)


def root_span_id(run_id: str) -> int:
    """The span of the run itself; never zero, which W3C forbids."""
    return ulid_int(run_id) & _SPAN_MASK or 1


def new_span_id(ids: Ids) -> int:
    """A fresh span id."""
    return int(ids.secret()[:16], 16) or 1


@asynccontextmanager
async def telemetry(settings: Settings, process: str, ids: Ids) -> AsyncGenerator[Telemetry]:
    """The telemetry of a process; what is still unsent is sent when the block ends."""
    if settings.otlp_endpoint is None:
        yield _Off(ids)
        return
    from infra.otel import exporting  # noqa: PLC0415  # costs 0.2 s: only who asked for it pays

    async with exporting(settings.otlp_endpoint, process, ids) as on:
        yield on


@dataclass(frozen=True, slots=True)
class _Unrecorded:
    traceparent: str

    def set(self, key: str, value: Value) -> None:
        pass

    def fail(self, message: str) -> None:
        pass


class _Off:
    def __init__(self, ids: Ids) -> None:
        self._ids = ids

    @contextmanager
    def step_span(
        self, run_id: str, name: str, *, parent: str | None = None, **attributes: Value
    ) -> Generator[_Unrecorded]:
        yield _Unrecorded(f"00-{trace_id(run_id):032x}-{new_span_id(self._ids):016x}-00")

    def run_span(self, run_id: str, name: str, start_ms: int, end_ms: int, **attributes: Value) -> None:
        pass

    def server_interceptors(self, unary_methods: Collection[str]) -> Sequence[grpc.aio.ServerInterceptor]:
        return ()

    def client_interceptors(self) -> Sequence[grpc.aio.ClientInterceptor]:
        return ()
