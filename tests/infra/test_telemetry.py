from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from infra.auth import Role
from infra.clock import ManualClock
from infra.ids import seeded_ids, ulid_int
from infra.mesh import serving
from infra.settings import Settings
from infra.telemetry import telemetry
from skyagent.execution.v1 import session_service_pb2 as pb
from tests.infra.peer import Sessions, service_of, stub_at

Mint = Callable[[Role], str]
RUN = "01JDB2Q0Z9V4X6T8R3N5M7K1HC"
IDS = seeded_ids(1, ManualClock())


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """A real OTLP receiver that keeps what it is sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    async def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: object
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return trace_service_pb2.ExportTraceServiceResponse()

    def named(self, name: str) -> Span:
        (span,) = (span for span in self.spans if span.name == name)
        return span


@asynccontextmanager
async def collecting(settings: Settings) -> AsyncGenerator[tuple[Collector, Settings]]:
    collector, server = Collector(), grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(  # pyright: ignore[reportUnknownMemberType]
        collector, server
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield collector, settings.model_copy(update={"otlp_endpoint": f"http://127.0.0.1:{port}"})
    finally:
        await server.stop(None)


async def test_off_imports_no_sdk(settings: Settings) -> None:
    script = (
        "import sys, infra.mesh, infra.telemetry\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry.sdk')]\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    assert await process.wait() == 0


async def test_off_still_hands_out_the_trace_of_the_run(settings: Settings) -> None:
    async with telemetry(settings, "test", IDS) as told:
        with told.step_span(RUN, "browser.click") as span:
            assert re.fullmatch(rf"00-{ulid_int(RUN):032x}-[0-9a-f]{{16}}-00", span.traceparent)


async def test_a_step_lies_below_its_run_in_the_runs_own_trace(settings: Settings) -> None:
    async with collecting(settings) as (collector, on):
        async with telemetry(on, "test", IDS) as told:
            with told.step_span(RUN, "browser.click", attempt=2) as span:
                traceparent = span.traceparent
            told.run_span(RUN, "run", 1000, 5000)
        run, step = collector.named("run"), collector.named("browser.click")
    assert int.from_bytes(step.trace_id) == int.from_bytes(run.trace_id) == ulid_int(RUN)
    assert step.parent_span_id == run.span_id
    assert traceparent == f"00-{step.trace_id.hex()}-{step.span_id.hex()}-01"
    assert (run.start_time_unix_nano, run.end_time_unix_nano) == (1_000_000_000, 5_000_000_000)
    assert {each.key: each.value.int_value for each in step.attributes}["attempt"] == 2


async def test_after_a_restart_the_same_trace_goes_on(settings: Settings) -> None:
    async with collecting(settings) as (collector, on):
        for name in ("before", "after"):
            async with telemetry(on, "test", IDS) as told:
                with told.step_span(RUN, name):
                    pass
        before, after = collector.named("before"), collector.named("after")
    assert (before.trace_id, before.parent_span_id) == (after.trace_id, after.parent_span_id)
    assert before.span_id != after.span_id


async def test_the_worker_goes_on_below_the_step_it_was_assigned(settings: Settings) -> None:
    async with collecting(settings) as (collector, on):
        async with telemetry(on, "test", IDS) as told:
            with told.step_span(RUN, "assign") as assigned:
                traceparent = assigned.traceparent
            with told.step_span(RUN, "execute", parent=traceparent) as executed:
                executed.fail("the button was covered")
        assign, execute = collector.named("assign"), collector.named("execute")
    assert execute.parent_span_id == assign.span_id
    assert execute.status.message == "the button was covered"


async def test_unary_calls_are_spans_and_streams_are_not(settings: Settings, mint: Mint, sessions: Sessions) -> None:
    async with collecting(settings) as (collector, on):
        async with serving([service_of(sessions)], on) as runtime, stub_at(runtime.address, mint(Role.VIEWER)) as stub:
            await stub.ListSessions(pb.ListSessionsRequest())
            watch = stub.WatchScreen(pb.WatchScreenRequest(session_id="s"))
            await watch.read()
            watch.cancel()
        names = [span.name for span in collector.spans]
    assert names == ["/skyagent.execution.v1.SessionService/ListSessions"]


async def test_a_collector_that_is_away_breaks_nothing(
    settings: Settings, mint: Mint, sessions: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    away = settings.model_copy(update={"otlp_endpoint": "http://127.0.0.1:1"})
    async with serving([service_of(sessions)], away) as runtime, stub_at(runtime.address, mint(Role.VIEWER)) as stub:
        await stub.ListSessions(pb.ListSessionsRequest())
