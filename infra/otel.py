"""Telemetry through the OpenTelemetry SDK to an OTLP collector; imported only when one is configured."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar

import grpc
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.grpc import (
    aio_client_interceptors,  # pyright: ignore[reportUnknownVariableType]
    aio_server_interceptor,  # pyright: ignore[reportUnknownVariableType]
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from infra.ids import Ids
from infra.telemetry import Value, new_span_id, root_span_id, trace_id

_EXPORT_TIMEOUT_S = 3
_W3C = TraceContextTextMapPropagator()


@asynccontextmanager
async def exporting(endpoint: str, process: str, ids: Ids) -> AsyncGenerator[Exporting]:
    """Telemetry that is sent to `endpoint` until the block ends; a collector that is away costs spans, never a call."""
    numbers = _Numbers(ids)
    resource = Resource.create({"service.name": "skyagent", "service.instance.id": process})
    provider = TracerProvider(resource=resource, id_generator=numbers, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint, insecure=not endpoint.startswith("https://"), timeout=_EXPORT_TIMEOUT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield Exporting(provider, numbers)
    finally:
        await asyncio.to_thread(provider.shutdown)


class Exporting:
    """Spans as the rest of the system knows them, made by the SDK."""

    def __init__(self, provider: TracerProvider, numbers: _Numbers) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("skyagent")
        self._numbers = numbers

    @contextmanager
    def step_span(
        self, run_id: str, name: str, *, parent: str | None = None, **attributes: Value
    ) -> Generator[_Recorded]:
        above = _W3C.extract({"traceparent": parent}) if parent else _below_run(run_id)
        with self._tracer.start_as_current_span(
            name, above, attributes={"skyagent.run_id": run_id, **attributes}
        ) as span:
            yield _Recorded(span)

    def run_span(self, run_id: str, name: str, start_ms: int, end_ms: int, **attributes: Value) -> None:
        with self._numbers.forced(trace_id(run_id), root_span_id(run_id)):
            span = self._tracer.start_span(
                name, Context(), start_time=start_ms * 1_000_000, attributes={"skyagent.run_id": run_id, **attributes}
            )
        span.end(end_ms * 1_000_000)

    def server_interceptors(self, unary_methods: Collection[str]) -> Sequence[grpc.aio.ServerInterceptor]:
        def is_unary(details: grpc.HandlerCallDetails) -> bool:
            return details.method in unary_methods

        return [aio_server_interceptor(self._provider, filter_=is_unary)]

    def client_interceptors(self) -> Sequence[grpc.aio.ClientInterceptor]:
        unary, *_streams = aio_client_interceptors(self._provider)
        return [unary]


class _Recorded:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    @property
    def traceparent(self) -> str:
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, trace.set_span_in_context(self._span))
        return carrier["traceparent"]

    def set(self, key: str, value: Value) -> None:
        self._span.set_attribute(key, value)

    def fail(self, message: str) -> None:
        self._span.set_status(trace.StatusCode.ERROR, message)


class _Numbers(IdGenerator):
    """Ids from infra.ids; those of a run's own span are forced."""

    def __init__(self, ids: Ids) -> None:
        self._ids = ids
        self._forced: ContextVar[tuple[int, int] | None] = ContextVar("forced_span", default=None)

    @contextmanager
    def forced(self, trace_number: int, span_number: int) -> Generator[None]:
        before = self._forced.set((trace_number, span_number))
        try:
            yield
        finally:
            self._forced.reset(before)

    def generate_trace_id(self) -> int:
        forced = self._forced.get()
        return forced[0] if forced else int(self._ids.secret()[:32], 16) or 1

    def generate_span_id(self) -> int:
        forced = self._forced.get()
        return forced[1] if forced else new_span_id(self._ids)


def _below_run(run_id: str) -> Context:
    sampled = trace.TraceFlags(trace.TraceFlags.SAMPLED)
    root = trace.SpanContext(trace_id(run_id), root_span_id(run_id), is_remote=True, trace_flags=sampled)
    return trace.set_span_in_context(trace.NonRecordingSpan(root), Context())
