"""Three verdicts from Cedar: ALLOW, DENY, or ASK when an approval would lift every forbid that fired.

Cedar denies by default and lets a forbid win. It also skips a policy that fails to evaluate, a forbid too: so any
diagnostics error is a DENY here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Literal, NotRequired, TypedDict, cast

import cedarpy

from control.policy_engine.messages import told
from control.policy_engine.request import Json, Questions
from control.policy_engine.spending import likeness, limits_of
from infra.digest import digest_of
from infra.errors import InvalidArgument, Violation
from skyagent.policy.v1 import decision_pb2 as pb

_DEFAULT_TTL = 900
_MAX_TTL = 7 * 86_400
_ENTITIES_KEPT = 256
_JUDGEMENTS_KEPT = 1024
_FOLDER = files("control.policy_engine") / "bundle"
_STRICTEST = (pb.VERDICT_DENY, pb.VERDICT_ASK, pb.VERDICT_ALLOW)
_NO_PERMIT = "no policy allows {action} here"


@dataclass(frozen=True, slots=True)
class Asking:
    """A rule that a person may lift: who may, and for how many seconds the question stays open."""

    policy_id: str
    approver: str
    ttl: int
    message: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the policies say of an action, and which of them."""

    verdict: pb.Verdict.ValueType
    policy_ids: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    asking: tuple[Asking, ...] = ()
    errors: tuple[str, ...] = ()


class Bundle:
    """Policies that were checked against the schema. Immutable: another bundle replaces it whole."""

    def __init__(self, policies: str) -> None:
        """Raises InvalidArgument (reason BAD_BUNDLE) with one violation for each thing that is wrong."""
        self.policies = policies
        self.schema = product_schema()
        self.digest = digest_of(f"{self.schema}\0{policies}".encode())
        self._rules = _checked(policies, self.schema)
        self._limits = limits_of(cast("Json", json.loads(cedarpy.policies_to_json_str(policies))))
        self._judged: dict[str, Judgement] = {}
        self._schema = cedarpy.Schema.from_str(self.schema)
        self._set = cedarpy.PolicySet.from_str(policies)
        self._entities = lru_cache(_ENTITIES_KEPT)(self._parsed)

    def judge(self, asked: Questions) -> Judgement:
        """The strictest of the verdicts on each question."""
        each = [self._recalled(now, then) for now, then in zip(asked.asked, asked.approved().asked, strict=True)]
        return each[0] if len(each) == 1 else _strictest(each)

    def _recalled(self, question: Json, approved: Json) -> Judgement:
        """The judgement, made before if only spending has changed, and that not beyond a limit."""
        alike = likeness(question, self._limits)
        if alike is None:
            return _strictest([self._judge(question, approved)])
        judged = self._judged.get(alike)
        if judged is None:
            if len(self._judged) >= _JUDGEMENTS_KEPT:
                self._judged.pop(next(iter(self._judged)))
            judged = self._judged[alike] = _strictest([self._judge(question, approved)])
        return judged

    def _judge(self, question: Json, approved: Json) -> Judgement:
        allowed, rules, errors = self._ask(question)
        if errors:
            return Judgement(pb.VERDICT_DENY, errors=errors)
        ids = tuple(rule.name for rule in rules)
        if allowed:
            return Judgement(pb.VERDICT_ALLOW, ids)
        reasons = tuple(told(rule.message, question) for rule in rules) or (told(_NO_PERMIT, question),)
        if rules and all(rule.asks for rule in rules):
            allowed, further, errors = self._ask(approved)
            if errors:
                return Judgement(pb.VERDICT_DENY, errors=errors)
            if allowed:
                asking = tuple(rule.asking(reason) for rule, reason in zip(rules, reasons, strict=True))
                return Judgement(pb.VERDICT_ASK, ids, reasons, asking)
            ids = (*ids, *(rule.name for rule in further))
            reasons = (*reasons, *(told(rule.message, approved) for rule in further))
        return Judgement(pb.VERDICT_DENY, ids, reasons)

    def _ask(self, question: Json) -> tuple[bool, tuple[_Rule, ...], tuple[str, ...]]:
        request = {name: question[name] for name in ("principal", "action", "resource", "context")}
        try:
            entities = self._entities(json.dumps(question["entities"]))
        except ValueError as bad:
            return False, (), (f"the entities are not as the schema has them: {bad}",)
        answer = cedarpy.is_authorized(  # pyright: ignore[reportUnknownMemberType]  # its dicts say no more
            request, self._set, entities, schema=self._schema
        )
        rules = tuple(
            sorted((self._rules[reason] for reason in answer.diagnostics.reasons), key=lambda rule: rule.name)
        )
        return answer.allowed, rules, tuple(answer.diagnostics.errors)

    def _parsed(self, entities: str) -> cedarpy.Entities:
        """A run and its mission, which are the same for all steps of the run."""
        return cedarpy.Entities.from_json_str(entities, self._schema)  # pyright: ignore[reportUnknownMemberType]


@dataclass(frozen=True, slots=True)
class _Rule:
    name: str
    message: str
    asks: bool
    approver: str
    ttl: int

    def asking(self, message: str) -> Asking:
        return Asking(self.name, self.approver, self.ttl, message)


class _Policy(TypedDict):
    effect: Literal["permit", "forbid"]
    annotations: NotRequired[Mapping[str, str | None]]


class _Document(TypedDict):
    staticPolicies: Mapping[str, _Policy]
    templates: Mapping[str, object]


def product_schema() -> str:
    """The schema that every bundle is checked against."""
    return (_FOLDER / "schema.cedarschema").read_text(encoding="utf-8")


def default_policies() -> str:
    """The policies that are in force until somebody puts others."""
    return (_FOLDER / "core.cedar").read_text(encoding="utf-8")


def _checked(policies: str, schema: str) -> Mapping[str, _Rule]:
    checked = cedarpy.validate_policies(policies, schema)  # pyright: ignore[reportUnknownMemberType]
    if checked.errors:
        raise _bad(f"{error.policy_id or 'the text'}: {error.error}" for error in checked.errors)
    document = cast("_Document", json.loads(cedarpy.policies_to_json_str(policies)))
    if document["templates"] or not document["staticPolicies"]:
        raise _bad(["a bundle holds policies, one at least, and no policy templates"])
    problems = [
        f"{_name(key, policy)}: {problem}"
        for key, policy in document["staticPolicies"].items()
        for problem in _problems(policy)
    ]
    names = [_name(key, policy) for key, policy in document["staticPolicies"].items()]
    problems += [f"{name}: two policies have this id" for name in sorted({n for n in names if names.count(n) > 1})]
    if problems:
        raise _bad(problems)
    return {key: _rule(_name(key, policy), policy) for key, policy in document["staticPolicies"].items()}


def _bad(problems: Iterable[str]) -> InvalidArgument:
    return InvalidArgument(*(Violation("policies", problem) for problem in problems), reason="BAD_BUNDLE")


def _name(key: str, policy: _Policy) -> str:
    return _notes(policy).get("id") or key


def _notes(policy: _Policy) -> Mapping[str, str | None]:
    return policy.get("annotations", {})


def _problems(policy: _Policy) -> Iterable[str]:
    notes = _notes(policy)
    if not notes.get("id"):
        yield 'give it an id: @id("area.rule")'
    if "obligation" in notes and notes["obligation"] != "approval":
        yield f'there is no obligation {notes["obligation"]!r}, only "approval"'
    if "obligation" in notes and policy["effect"] != "forbid":
        yield "an obligation belongs on a forbid that is lifted when context.approved"
    ttl = notes.get("ttl") or str(_DEFAULT_TTL)
    if not (ttl.isdecimal() and 0 < int(ttl) <= _MAX_TTL):
        yield f"@ttl is a whole number of seconds up to {_MAX_TTL}, not {ttl!r}"


def _rule(name: str, policy: _Policy) -> _Rule:
    notes = _notes(policy)
    return _Rule(
        name=name,
        message=notes.get("message") or f"the policy {name} forbids it",
        asks="obligation" in notes,
        approver=notes.get("approver") or "approver",
        ttl=int(notes.get("ttl") or _DEFAULT_TTL),
    )


def _strictest(each: list[Judgement]) -> Judgement:
    verdict = next(verdict for verdict in _STRICTEST if any(one.verdict == verdict for one in each))
    deciding = [one for one in each if one.verdict == verdict]
    return Judgement(
        verdict,
        tuple(dict.fromkeys(name for one in deciding for name in one.policy_ids)),
        tuple(dict.fromkeys(reason for one in deciding for reason in one.reasons)),
        tuple(dict.fromkeys(asking for one in deciding for asking in one.asking)),
        tuple(dict.fromkeys(error for one in each for error in one.errors)),
    )
