"""What a policy's message says of the step at hand. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal

from control.policy_engine.request import Json, JsonValue

_MAX_SHOWN = 200
_PLACE = re.compile(r"\{(\w+)\}")


def told(message: str, question: Json) -> str:
    """The message with {amount}, {limit}, {host}, {path}, {program}, {secrets} and {action} filled in from facts."""
    facts = _facts(question)
    return _PLACE.sub(lambda place: facts.get(place[1], place[0])[:_MAX_SHOWN], message)


def _facts(question: Json) -> Mapping[str, str]:
    context, resource = _at(question, "context"), _resource(question)
    secrets = _at(context, "secrets")
    scheme, host = _at(context, "scheme"), _at(context, "host")
    return {
        "amount": _money(_at(context, "amount_cents")),
        "limit": _money(_at(resource, "approve_above_cents")),
        "host": str(host) or f"an address of scheme {scheme!r}",
        "path": repr(_at(context, "path")),
        "program": repr(_at(context, "program")),
        "secrets": ", ".join(map(str, secrets)) if isinstance(secrets, Sequence) else "",
        "action": str(_at(_at(question, "action"), "id")),
    }


def _resource(question: Json) -> JsonValue:
    entities = _at(question, "entities")
    uid = _at(question, "resource")
    found = [one for one in entities if _at(one, "uid") == uid] if isinstance(entities, Sequence) else []
    return _at(found[0], "attrs") if found else {}


def _at(value: JsonValue, name: str) -> JsonValue:
    return value.get(name, "") if isinstance(value, Mapping) else ""


def _money(cents: JsonValue) -> str:
    return f"{Decimal(cents).scaleb(-2):,.2f}" if isinstance(cents, int) else "unknown"
