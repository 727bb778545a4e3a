"""What lies behind the gateway."""

from __future__ import annotations

from gateway.envoy.edge import Address, Edge, Json, any_of

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def clusters(edge: Edge) -> list[Json]:
    """The control plane and, where traces go somewhere, their collector."""
    return [_control(edge), *([_cluster("otlp", edge.otlp)] if edge.otlp else [])]


def _control(edge: Edge) -> Json:
    """Asked for its health often while it is away, so that a restart is noticed within a blink."""
    health: Json = {
        "timeout": "1s",
        "interval": "2s",
        "unhealthy_interval": "0.2s",
        "no_traffic_interval": "0.2s",
        "no_traffic_healthy_interval": "2s",
        "unhealthy_threshold": 1,
        "healthy_threshold": 1,
        "always_log_health_check_failures": False,
        # Of the process, not of what it needs: one that cannot write still answers whoever reads.
        "grpc_health_check": {"service_name": "skyagent.mesh.v1.MeshService"},
    }
    limits: Json = {"max_requests": 4096, "max_retries": 64, "max_connections": 64}
    return {
        **_cluster("control", edge.control),
        "health_checks": [health],
        "circuit_breakers": {"thresholds": [limits]},
        "per_connection_buffer_limit_bytes": 1024 * 1024,
    }


def _cluster(name: str, address: Address) -> dict[str, Json]:
    endpoint: Json = {"endpoint": {"address": socket_address(address)}}
    http2: Json = {"connection_keepalive": {"interval": "20s", "timeout": "5s"}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            HTTP_OPTIONS: any_of(
                "extensions.upstreams.http.v3.HttpProtocolOptions",
                explicit_http_config={"http2_protocol_options": http2},
            )
        },
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def socket_address(address: Address) -> Json:
    """Envoy's form of an address."""
    return {"socket_address": {"address": address.host, "port_value": address.port}}
