"""Where a path leads. Order matters: the first route that matches wins, and decides which filters apply."""

from __future__ import annotations

from gateway.envoy.edge import Edge, Json, header
from gateway.envoy.filters import (
    SESSION_COOKIE,
    TOKEN_HEADER,
    bounded,
    cached_forever,
    foreign_bytes,
    linkable,
    public,
    told_by_status,
    untranscoded,
)
from gateway.envoy.services import TOOLING, Binding, Method, methods

HTTP_BODY = "google.api.HttpBody"
# The services enforce the deadline of each call; this is only for a service that hangs.
REST_SECONDS = 60
HEALTH, METRICS = MONITORING = ("/healthz", "/metrics")
"""Paths that programs look at, and people in a browser: no page of the dashboard stands in for them."""
HEALTH_SECONDS = 3
MAX_INLINE_BYTES = 4 * 1024 * 1024
SESSION_DAYS = 7

SHELL_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; font-src 'self'; "
    "connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
# Whatever the bytes are: no scripts, no requests, an origin of its own.
BLOB_POLICY = "sandbox; default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'"


def route_configuration(edge: Edge) -> Json:
    """The one virtual host; foreign Host headers were refused before it matters."""
    return {
        "name": "edge",
        "max_direct_response_body_size_bytes": MAX_INLINE_BYTES,
        "request_headers_to_remove": ["cookie", TOKEN_HEADER],
        "virtual_hosts": [{"name": "skyagent", "domains": ["*"], "routes": routes(edge)}],
    }


def routes(edge: Edge) -> list[Json]:
    """All of them, in order."""
    known = methods(edge.contract, edge.services)
    plain = tuple(method for method in known if not method.streams)
    return [
        _file(edge, {"path": "/openapi.json"}, edge.openapi, "application/json"),
        *_session(),
        _assets(),
        *(_rpc(method.path, seconds=0) for method in known if method.streams),
        *(_rpc(method.path, seconds=edge.max_seconds) for method in plain),
        *(_tool(service) for service in TOOLING),
        *_bindings(known, below=("/v1/", *MONITORING)),
        _shell(edge, {"prefix": "/", "headers": [_method("GET"), _wants_html()]}),
        *_bindings(known, below=("/",), but=("/v1/", *MONITORING)),
        _shell(edge, {"path": "/"}),
        {
            "match": {"prefix": "/"},
            "direct_response": {"status": 404},
            "typed_per_filter_config": {**public(), **untranscoded()},
        },
    ]


def _bindings(known: tuple[Method, ...], *, below: tuple[str, ...], but: tuple[str, ...] = ()) -> list[Json]:
    """Streams first: "/v1/runs/{run_id}" matches "/v1/runs/X:watch" too, and has a timeout."""
    return [
        _rest(method, binding)
        for method in sorted(known, key=lambda method: not method.streams)
        for binding in method.bindings
        if binding.template.startswith(below) and not binding.template.startswith(but)
    ]


def _rest(method: Method, binding: Binding) -> Json:
    """One path of REST. What was refused unread is sent again; what may have been read, only if it reads."""
    blob = method.response == HTTP_BODY and method.streams
    health = binding.template == HEALTH
    seconds = 0 if method.streams else HEALTH_SECONDS if health else REST_SECONDS
    return {
        "match": {
            "safe_regex": {"regex": binding.pattern},
            "headers": [_method(binding.verb)],
        },
        "route": {
            "cluster": "control",
            "timeout": f"{seconds}s",
            **({"idle_timeout": "0s"} if method.streams else {}),
            **({} if health else {"retry_policy": _retry(reads=binding.verb == "GET" and not method.streams)}),
        },
        "response_headers_to_add": [
            header("content-security-policy", BLOB_POLICY) if blob else header("cache-control", "no-store")
        ],
        "typed_per_filter_config": {
            **(foreign_bytes() if blob else {}),
            **(told_by_status() if health else {}),
            **(public() if method.public else {}),
            **_bounds(method),
        },
    }


def _bounds(method: Method) -> dict[str, Json]:
    return {} if method.streams else bounded(method.request)


def _rpc(path: str, *, seconds: int) -> Json:
    return {
        "match": {"path": path},
        "route": {
            "cluster": "control",
            "timeout": f"{seconds}s",
            **({} if seconds else {"idle_timeout": "0s"}),
            "retry_policy": _retry(reads=False),
        },
    }


def _tool(service: str) -> Json:
    return {
        "match": {"prefix": f"/{service}/"},
        "route": {"cluster": "control", "timeout": "0s", "retry_policy": _retry(reads=False)},
    }


def _retry(*, reads: bool) -> Json:
    unread = "connect-failure,refused-stream"
    return {
        "retry_on": f"{unread},unavailable,reset-before-request" if reads else unread,
        "num_retries": 5,
        "retry_back_off": {"base_interval": "0.05s", "max_interval": "1s"},
    }


def _session() -> list[Json]:
    """POST with the token in a header makes the cookie a browser needs; the filters before have verified the token."""
    kept = "Path=/; HttpOnly; SameSite=Strict"
    value = f"{SESSION_COOKIE}=%REQ({TOKEN_HEADER})%; {kept}; Max-Age={SESSION_DAYS * 86400}"
    return [
        {
            "match": {"path": "/session", "headers": [_method("POST"), {"name": TOKEN_HEADER, "present_match": True}]},
            "direct_response": {"status": 204},
            "response_headers_to_add": [header("set-cookie", value)],
            "typed_per_filter_config": untranscoded(),
        },
        {
            "match": {"path": "/session", "headers": [_method("DELETE")]},
            "direct_response": {"status": 204},
            "response_headers_to_add": [header("set-cookie", f"{SESSION_COOKIE}=; {kept}; Max-Age=0")],
            "typed_per_filter_config": {**public(), **untranscoded()},
        },
    ]


def _assets() -> Json:
    """Files with a hash in their name; the file server answers before this 404 does."""
    return {
        "match": {"prefix": "/assets/"},
        "direct_response": {"status": 404},
        "typed_per_filter_config": {**public(), **untranscoded(), **cached_forever()},
    }


def _shell(edge: Edge, match: Json) -> Json:
    """The dashboard's one page. What it shows stands in the address, so every path a person opens is this page."""
    return _file(edge, match, edge.index, "text/html; charset=utf-8")


def _file(edge: Edge, match: Json, path: object, media_type: str) -> Json:
    return {
        "match": match,
        "direct_response": {"status": 200, "body": {"filename": str(path)}},
        "response_headers_to_add": [
            header("content-type", media_type),
            header("cache-control", "no-cache"),
            header("content-security-policy", SHELL_POLICY),
        ],
        "typed_per_filter_config": {**public(), **untranscoded(), **linkable(edge)},
    }


def _method(verb: str) -> Json:
    return {"name": ":method", "string_match": {"exact": verb}}


def _wants_html() -> Json:
    return {"name": "accept", "string_match": {"contains": "text/html"}}
