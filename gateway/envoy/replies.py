"""What Envoy says itself, in the shape that the services' own errors have: google.rpc.Status as JSON."""

from __future__ import annotations

from typing import NamedTuple

from gateway.envoy.edge import Json


class Reply(NamedTuple):
    """How an HTTP status that Envoy answers by itself is told."""

    status: int
    code: int
    reason: str
    message: str


REPLIES = (
    Reply(400, 3, "BAD_REQUEST", "the request is not valid: %LOCAL_REPLY_BODY%; /openapi.json has every field"),
    Reply(
        401,
        16,
        "UNAUTHENTICATED",
        "%LOCAL_REPLY_BODY%: send the token of the data directory as Bearer",
    ),
    Reply(
        403,
        7,
        "REFUSED_BY_GATEWAY",
        "refused: Host and Origin must be the address of this gateway",
    ),
    Reply(404, 5, "NO_SUCH_PATH", "no %REQ(:METHOD)% of %PATH(NQ:ORIG_OR_PATH)%; /openapi.json has every path"),
    Reply(408, 4, "REQUEST_TOO_SLOW", "the request did not arrive in time"),
    Reply(413, 3, "REQUEST_TOO_LARGE", "the request is larger than 8 MiB; ArtifactService.Upload streams files"),
    Reply(431, 3, "HEADERS_TOO_LARGE", "the headers are larger than 60 KiB"),
    Reply(503, 14, "CONTROL_PLANE_AWAY", "the control plane does not answer; try again, `skyagent status` tells why"),
    Reply(504, 4, "DEADLINE_EXCEEDED", "the control plane did not answer in time; whether it happened is not known"),
)


def local_replies() -> Json:
    """The mappers; what none of them takes becomes INTERNAL."""
    rest = Reply(0, 13, "GATEWAY_ERROR", "%LOCAL_REPLY_BODY%")
    return {"mappers": [_nobody_well(), *(_mapper(reply) for reply in (*REPLIES, rest))]}


def _nobody_well() -> Json:
    """Whoever asks for the health of a control plane that does not answer is told so in the form of its answer."""
    told = "the gateway gets no answer from it (%RESPONSE_CODE_DETAILS%); `skyagent status` tells why"
    asked: Json = {"name": "x-envoy-original-path", "string_match": {"safe_regex": {"regex": r"/healthz(\?.*)?"}}}
    failed: Json = {"op": "GE", "value": {"default_value": 500, "runtime_key": "skyagent.reply.health"}}
    filters: Json = [{"header_filter": {"header": asked}}, {"status_code_filter": {"comparison": failed}}]
    fact: Json = {"name": "control-plane", "state": "HEALTH_STATE_FAILING", "detail": told}
    return {
        "filter": {"and_filter": {"filters": filters}},
        "status_code": 503,
        "body_format_override": {"json_format": {"state": "HEALTH_STATE_FAILING", "facts": [fact]}},
    }


def _mapper(reply: Reply) -> Json:
    return {"filter": _not_grpc(reply.status), "body_format_override": _format(reply)}


def _not_grpc(status: int) -> Json:
    """Clients of gRPC get the status in trailers, where a JSON text would only be in the way."""
    wanted: Json = {
        "status_code_filter": {
            "comparison": {
                "op": "EQ" if status else "GE",
                "value": {"default_value": status or 400, "runtime_key": f"skyagent.reply.{status}"},
            }
        }
    }
    not_grpc: Json = {
        "header_filter": {
            "header": {
                "name": "content-type",
                "string_match": {"safe_regex": {"regex": r"application/grpc(\+.*)?"}},
                "treat_missing_header_as_empty": True,
                "invert_match": True,
            }
        }
    }
    # The transcoder has turned a REST request into gRPC by the time it, or a filter after it, refuses.
    transcoded: Json = {"header_filter": {"header": {"name": "x-envoy-original-path", "present_match": True}}}
    return {"and_filter": {"filters": [wanted, {"or_filter": {"filters": [not_grpc, transcoded]}}]}}


def _format(reply: Reply) -> Json:
    return {
        "json_format": {
            "code": reply.code,
            "message": reply.message,
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": reply.reason,
                    "domain": "skyagent",
                    "metadata": {"cause": "%RESPONSE_CODE_DETAILS%"},
                },
                {"@type": "type.googleapis.com/google.rpc.RequestInfo", "requestId": "%REQ(x-request-id)%"},
            ],
        }
    }
