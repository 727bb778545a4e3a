"""The filters that a request passes, in order, and what a route may say to them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gateway.envoy.edge import Edge, Json, any_of, header, typed
from gateway.envoy.services import methods
from gateway.envoy.strictness import strict_script
from infra.mesh_service import STATE_HEADER

BUFFER = "envoy.filters.http.buffer"
HEADERS = "envoy.filters.http.header_mutation"
JWT = "envoy.filters.http.jwt_authn"
STRICT = "skyagent.strict"
LUA = "envoy.filters.http.lua"
RBAC = "envoy.filters.http.rbac"
TRANSCODER = "envoy.filters.http.grpc_json_transcoder"

SESSION_COOKIE = "skyagent_session"
TOKEN_HEADER = "x-skyagent-token"  # noqa: S105 - a name, not a token
# Set by a filter, because what Envoy answers itself passes no route.
EVERYWHERE = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
MAX_REQUEST_BYTES = 8 * 1024 * 1024
MAX_RESPONSE_BYTES = 64 * 1024 * 1024

# A browser's cookie becomes the bearer that jwt_authn and the services verify, so that there is one way to be known.
SESSION_SCRIPT = f"""
function envoy_on_request(handle)
  local headers = handle:headers()
  if headers:get("authorization") then return end
  local token = headers:get("{TOKEN_HEADER}")
  if not token then
    token = ("; " .. (headers:get("cookie") or "")):match("; {SESSION_COOKIE}=([%w%-_%.]+)")
  end
  if token then headers:add("authorization", "Bearer " .. token) end
end
"""

ASSET_SCRIPT = """
function envoy_on_response(handle)
  local headers = handle:headers()
  if headers:get(":status") == "200" then
    headers:replace("cache-control", "public, max-age=31536000, immutable")
  end
end
"""

# What a mission collected is foreign: only pictures may show themselves, all else is for saving.
BLOB_SCRIPT = """
function envoy_on_response(handle)
  local headers = handle:headers()
  if headers:get(":status") ~= "200" then return end
  headers:replace("cache-control", "private, max-age=31536000, immutable")
  local media_type = headers:get("content-type") or ""
  if not media_type:find("^image/") or media_type:find("svg") then
    headers:replace("content-disposition", "attachment")
  end
end
"""


# The control plane says how it is in a header, because what it answers is an answer either way.
HEALTH_SCRIPT = f"""
function envoy_on_response(handle)
  local headers = handle:headers()
  if headers:get("{STATE_HEADER}") == "failing" then headers:replace(":status", "503") end
end
"""


def http_filters(edge: Edge) -> list[Json]:
    """Refuse foreign pages, know the caller, then files, gRPC-Web and REST."""
    return [
        typed(HEADERS, "extensions.filters.http.header_mutation.v3.HeaderMutation", mutations=_response(EVERYWHERE)),
        typed(RBAC, "extensions.filters.http.rbac.v3.RBAC", rules=_refused(edge, *_foreign_pages(edge))),
        _lua(SESSION_SCRIPT),
        _jwt(edge),
        _buffer(),
        _strict(edge),
        _compressor(),
        *([_file_server(edge)] if edge.assets else []),
        typed("envoy.filters.http.grpc_web", "extensions.filters.http.grpc_web.v3.GrpcWeb"),
        _transcoder(edge),
        typed("envoy.filters.http.router", "extensions.filters.http.router.v3.Router"),
    ]


def public() -> dict[str, Json]:
    """For a route that needs no token."""
    return {JWT: any_of("extensions.filters.http.jwt_authn.v3.PerRouteConfig", disabled=True)}


def bounded(request: str) -> dict[str, Json]:
    """For a body of JSON, read whole: refused when it is too large, or has a field that `request` does not have."""
    limit: Json = {"max_request_bytes": MAX_REQUEST_BYTES}
    return {
        BUFFER: any_of("extensions.filters.http.buffer.v3.BufferPerRoute", buffer=limit),
        STRICT: any_of("extensions.filters.http.lua.v3.LuaPerRoute", name=STRICT, filter_context={"request": request}),
    }


def untranscoded() -> dict[str, Json]:
    """For a route that Envoy answers itself: the transcoder would refuse a path it does not know."""
    return {TRANSCODER: any_of("config.route.v3.FilterConfig", disabled=True)}


def linkable(edge: Edge) -> dict[str, Json]:
    """For pages that other sites may link to: only the Host is checked."""
    return {RBAC: any_of("extensions.filters.http.rbac.v3.RBACPerRoute", rbac={"rules": _refused(edge)})}


def cached_forever() -> dict[str, Json]:
    """For files whose name changes with their bytes; a missing one may come yet."""
    return _scripted(ASSET_SCRIPT)


def foreign_bytes() -> dict[str, Json]:
    """For bytes that a mission collected."""
    return _scripted(BLOB_SCRIPT)


def told_by_status() -> dict[str, Json]:
    """For the health of the control plane."""
    return _scripted(HEALTH_SCRIPT)


def _scripted(script: str) -> dict[str, Json]:
    return {LUA: any_of("extensions.filters.http.lua.v3.LuaPerRoute", source_code={"inline_string": script})}


def _response(headers: Mapping[str, str]) -> Json:
    return {"response_mutations": [{"append": header(name, value)} for name, value in headers.items()]}


def _refused(edge: Edge, *more: tuple[str, Json]) -> Json:
    foreign_host: Json = {"not_rule": _header(":authority", _any_of_these(edge.authorities))}
    policies = (("foreign-host", foreign_host), *more)
    return {
        "action": "DENY",
        "policies": {name: {"permissions": [rule], "principals": [{"any": True}]} for name, rule in policies},
    }


def _foreign_pages(edge: Edge) -> tuple[tuple[str, Json], ...]:
    """A page of another origin, which a browser tells of in one of two ways; programs send neither header."""
    origins = tuple(f"http://{authority}" for authority in edge.authorities)
    own: Json = _header("origin", _any_of_these(origins))
    return (
        ("foreign-origin", {"and_rules": {"rules": [_present("origin"), {"not_rule": own}]}}),
        ("cross-site", _header("sec-fetch-site", {"safe_regex": {"regex": "cross-site|same-site"}})),
    )


def _any_of_these(values: tuple[str, ...]) -> Json:
    return {"safe_regex": {"regex": "|".join(re.escape(value) for value in values)}}


def _header(name: str, match: Json) -> Json:
    return {"header": {"name": name, "string_match": match}}


def _present(name: str) -> Json:
    return {"header": {"name": name, "present_match": True}}


def _lua(script: str) -> Json:
    return typed(LUA, "extensions.filters.http.lua.v3.Lua", default_source_code={"inline_string": script})


def _jwt(edge: Edge) -> Json:
    """Every path needs a token unless its route is `public()`: a forgotten rule locks out, it never lets in."""
    provider: Json = {
        "issuer": "skyagent",
        "audiences": ["skyagent"],
        "local_jwks": {"filename": str(edge.jwks)},
        "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
        "payload_in_metadata": "claims",
        "forward": True,
    }
    return typed(
        JWT,
        "extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        providers={"skyagent": provider},
        rules=[{"match": {"prefix": "/"}, "requires": {"provider_name": "skyagent"}}],
    )


def _buffer() -> Json:
    """Only where a route is `bounded()`: a stream must not be held back."""
    limit = typed(BUFFER, "extensions.filters.http.buffer.v3.Buffer", max_request_bytes=MAX_REQUEST_BYTES)
    return {**limit, "disabled": True}


def _strict(edge: Edge) -> Json:
    """Envoy 1.40 has no option for it: it drops what it does not know."""
    requests = {method.request for method in methods(edge.contract, edge.services) if method.bindings}
    source: Json = {"inline_string": strict_script(edge.contract, requests)}
    return typed(STRICT, "extensions.filters.http.lua.v3.Lua", source_codes={STRICT: source})


def _compressor() -> Json:
    return typed(
        "envoy.filters.http.compressor",
        "extensions.filters.http.compressor.v3.Compressor",
        response_direction_config={"common_config": {"min_content_length": 1024}},
        compressor_library=typed("gzip", "extensions.compression.gzip.compressor.v3.Gzip"),
    )


def _file_server(edge: Edge) -> Json:
    """Work in progress upstream, hence the exact pin of Envoy; it only ever sees /assets/."""
    return typed(
        "envoy.filters.http.file_server",
        "extensions.filters.http.file_server.v3.FileServerConfig",
        manager_config={"thread_pool": {"thread_count": 1}},
        path_mappings=[{"request_path_prefix": "/assets/", "file_path_prefix": f"{edge.assets}/"}],
        content_types={
            "css": "text/css",
            "js": "text/javascript",
            "json": "application/json",
            "map": "application/json",
            "png": "image/png",
            "svg": "image/svg+xml",
            "woff2": "font/woff2",
        },
        default_content_type="application/octet-stream",
    )


def _transcoder(edge: Edge) -> Json:
    return typed(
        TRANSCODER,
        "extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        proto_descriptor=str(edge.descriptors),
        services=list(edge.services),
        convert_grpc_status=True,
        match_incoming_request_route=True,
        case_insensitive_enum_parsing=True,
        query_param_unescape_plus=True,
        max_request_body_size=MAX_REQUEST_BYTES,
        max_response_body_size=MAX_RESPONSE_BYTES,
        request_validation_options={
            "reject_unknown_method": True,
            "reject_unknown_query_parameters": True,
            "reject_binding_body_field_collisions": True,
        },
        print_options={"stream_sse_style_delimited": True},
    )
