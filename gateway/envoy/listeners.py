"""The one port: HTTP/1.1 and HTTP/2 without TLS, told apart by their first bytes."""

from __future__ import annotations

from gateway.envoy.clusters import socket_address
from gateway.envoy.edge import Edge, Json, typed
from gateway.envoy.filters import MAX_REQUEST_BYTES, http_filters
from gateway.envoy.replies import local_replies
from gateway.envoy.routes import route_configuration

LOG_FIELDS = {
    "time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "path": "%PATH(NQ:ORIG_OR_PATH)%",
    "code": "%RESPONSE_CODE%",
    "grpc": "%GRPC_STATUS%",
    "flags": "%RESPONSE_FLAGS%",
    "cause": "%RESPONSE_CODE_DETAILS%",
    "ms": "%DURATION%",
    "request": "%REQ(X-REQUEST-ID)%",
    "subject": "%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:claims:sub)%",
}

FAILED = ("PERMISSION_DENIED", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "INTERNAL", "DATA_LOSS")


def listeners(edge: Edge) -> list[Json]:
    """One listener, one chain."""
    return [
        {
            "name": "edge",
            "address": socket_address(edge.listen),
            "per_connection_buffer_limit_bytes": MAX_REQUEST_BYTES,
            "filter_chains": [{"filters": [_connection_manager(edge)]}],
        }
    ]


def _connection_manager(edge: Edge) -> Json:
    return typed(
        "envoy.filters.network.http_connection_manager",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="edge",
        codec_type="AUTO",
        use_remote_address=True,
        server_name="skyagent",
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action="REJECT_REQUEST",
        common_http_protocol_options={"idle_timeout": "3600s", "headers_with_underscores_action": "REJECT_REQUEST"},
        request_headers_timeout="10s",
        stream_idle_timeout="300s",
        http2_protocol_options={
            "max_concurrent_streams": 256,
            "connection_keepalive": {"interval": "30s", "timeout": "10s"},
        },
        generate_request_id=True,
        always_set_request_id_in_response=True,
        access_log=[_access_log()],
        local_reply_config=local_replies(),
        **_tracing(edge),
        http_filters=http_filters(edge),
        route_config=route_configuration(edge),
    )


def _access_log() -> Json:
    """Only what went wrong: the journal tells what went right. To standard output, which the supervisor keeps short."""
    failed: Json = {
        "status_code_filter": {
            "comparison": {"op": "GE", "value": {"default_value": 400, "runtime_key": "skyagent.log.status"}}
        }
    }
    told: Json = {"or_filter": {"filters": [failed, {"grpc_status_filter": {"statuses": list(FAILED)}}]}}
    return {**_stdout(), "filter": {"and_filter": {"filters": [{"not_health_check_filter": {}}, told]}}}


def _stdout() -> dict[str, Json]:
    return {
        "name": "envoy.access_loggers.stdout",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
            "log_format": {"json_format": dict(LOG_FIELDS)},
        },
    }


def _tracing(edge: Edge) -> dict[str, Json]:
    """Spans of the edge, joined to the services' own by W3C headers; nothing at all when traces go nowhere."""
    if edge.otlp is None:
        return {}
    provider = typed(
        "envoy.tracers.opentelemetry",
        "config.trace.v3.OpenTelemetryConfig",
        service_name="skyagent-gateway",
        grpc_service={"envoy_grpc": {"cluster_name": "otlp"}, "timeout": "0.25s"},
    )
    return {"tracing": {"random_sampling": {"value": 100}, "spawn_upstream_span": True, "provider": provider}}
