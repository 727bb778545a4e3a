"""What Cedar is asked: one canonical request for each action, made of facts that code computes. Pure."""

from __future__ import annotations

import ipaddress
import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import pydantic
from pydantic import BaseModel, ConfigDict, TypeAdapter

from control.core.budget import DEFAULT_STEPS
from control.core.facts import action_name, facts_of, single_actions
from control.core.inputs import host_patterns
from skyagent.execution.v1.action_pb2 import Action
from skyagent.execution.v1.facts_pb2 import Facts
from skyagent.policy.v1.policy_service_pb2 import CheckRequest

Json = Mapping[str, "JsonValue"]
JsonValue = str | int | bool | Sequence["JsonValue"] | Json


class _Recorded(BaseModel):
    """The shape that Cedar needs; what is in it Cedar checks against the schema."""

    model_config = ConfigDict(extra="forbid", strict=True)

    principal: dict[str, pydantic.JsonValue]
    action: dict[str, pydantic.JsonValue]
    resource: dict[str, pydantic.JsonValue]
    context: dict[str, pydantic.JsonValue]
    entities: list[dict[str, pydantic.JsonValue]]


_RECORDED = TypeAdapter(list[_Recorded])
_NO_LIMIT = 2**63 - 1
_LOCAL_NAMES = ("localhost", "local", "internal", "lan", "home.arpa")


@dataclass(frozen=True, slots=True)
class Questions:
    """What is asked about an action, in Cedar's JSON: one question for each action of a batch."""

    asked: tuple[Json, ...]

    def canonical(self) -> bytes:
        """The same questions give the same bytes; questions_from() reads them back."""
        return json.dumps(self.asked, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    def approved(self) -> Questions:
        """The same questions, had a person said yes."""
        return Questions(tuple({**one, "context": {**_record(one, "context"), "approved": True}} for one in self.asked))


def questions(check: CheckRequest, tenant: str) -> Questions:
    """The questions about a check that a caller of `tenant` makes. The facts that the caller gives are not looked at.

    Raises:
        InvalidArgument: when batches are nested too deep.
    """
    return Questions(tuple(_question(check, action, tenant) for action in single_actions(check.action)))


def questions_from(canonical: bytes) -> Questions:
    """Questions as they were recorded in a decision. Raises ValueError."""
    recorded = _RECORDED.validate_json(canonical)
    if not recorded:
        raise ValueError("a recorded request asks at least one question")
    return Questions(tuple(cast("Json", question.model_dump()) for question in recorded))


def _question(check: CheckRequest, action: Action, tenant: str) -> Json:
    agent = {"type": "SkyAgent::Agent", "id": check.run_id or "none"}
    mission = {"type": "SkyAgent::Mission", "id": check.mission_id or "none"}
    return {
        "principal": agent,
        "action": {"type": "SkyAgent::Action", "id": action_name(action)},
        "resource": mission,
        "context": _context(check, action),
        "entities": [
            {"uid": agent, "attrs": {"tenant": tenant, "actor": check.actor}, "parents": []},
            {"uid": mission, "attrs": _mission(check), "parents": []},
        ],
    }


def _mission(check: CheckRequest) -> Json:
    limits = check.limits if check.HasField("limits") else check.spec.limits
    asks = {"approve_above_cents": _long(limits.approve_above_cents)} if limits.approve_above_cents else {}
    return {
        "tenant": check.tenant,
        "owner": check.actor,
        "template": check.spec.template,
        "allowed_hosts": sorted({host.lower() for host in check.spec.allowed_hosts}),
        "max_steps": limits.max_steps or DEFAULT_STEPS,
        "max_cost_microusd": _long(limits.max_cost_microusd) or _NO_LIMIT,
        "max_wall_seconds": limits.max_wall_time.seconds + bool(limits.max_wall_time.nanos) or _NO_LIMIT,
        **asks,
    }


def _context(check: CheckRequest, action: Action) -> Json:
    facts = facts_of(action)
    return {
        "approved": check.approved,
        "dry_run": check.spec.dry_run,
        "intent": facts.intent,
        "sends_data": facts.sends_data,
        "secrets": list(facts.secrets),
        "spent": {
            "steps": check.spent.steps,
            "cost_microusd": _long(check.spent.cost_microusd),
            "wall_seconds": _long(check.spent.wall_seconds),
        },
        "taint": {"untrusted_seen": check.taint.untrusted_seen, "sensitive_seen": check.taint.sensitive_seen},
        "scheme": facts.scheme,
        "host": facts.host,
        "host_patterns": list(host_patterns(facts.host)),
        **_place(facts),
        **({"amount_cents": facts.amount_cents} if facts.HasField("amount_cents") else {}),
        "path": facts.path,
        "path_inside": _inside(facts.path),
        "program": facts.program,
        "network": action.workspace.exec.network,
    }


def _place(facts: Facts) -> Json:
    name = facts.host.partition("]")[0][1:] if facts.host.startswith("[") else facts.host.partition(":")[0]
    try:
        address = {"address": {"__extn": {"fn": "ip", "arg": str(ipaddress.ip_address(name))}}}
    except ValueError:
        address = {}
    # Chromium reads "2130706433", "0x7f.1" and "127.1" as 127.0.0.1: what ends in a number and is no address is local.
    last = name.rpartition(".")[2]
    odd = not address and (last.isdigit() or last.startswith("0x"))
    return {**address, "host_is_local": odd or any(f".{name}".endswith(f".{local}") for local in _LOCAL_NAMES)}


def _inside(path: str) -> bool:
    """Whether a path stays in the folder that it is relative to. Links are the sandbox's business, not a name's."""
    normal = posixpath.normpath(path or ".")
    return not normal.startswith("/") and normal != ".." and not normal.startswith("../") and "\0" not in path


def _long(number: int) -> int:
    return min(number, _NO_LIMIT)


def _record(question: Json, name: str) -> Json:
    found = question[name]
    return found if isinstance(found, Mapping) else {}
