"""The whole configuration."""

from __future__ import annotations

from gateway.envoy.clusters import clusters
from gateway.envoy.edge import Edge, Json
from gateway.envoy.listeners import listeners

MAX_CONNECTIONS = 1024


def bootstrap(edge: Edge) -> dict[str, Json]:
    """What Envoy starts from. Its admin interface, if any, is a socket that only its user may open."""
    connections: Json = {
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3"
            ".DownstreamConnectionsConfig",
            "max_active_downstream_connections": MAX_CONNECTIONS,
        },
    }
    return {
        **_admin(edge),
        "overload_manager": {"resource_monitors": [connections]},
        "static_resources": {"listeners": listeners(edge), "clusters": clusters(edge)},
    }


def _admin(edge: Edge) -> dict[str, Json]:
    if edge.admin_socket is None:
        return {}
    return {"admin": {"address": {"pipe": {"path": str(edge.admin_socket), "mode": 0o600}}}}
