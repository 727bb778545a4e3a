"""Whether a run may use more: its limits, what it was granted, and what it has used. Pure.

A run draws from the budgets of its mission and its tenant only what they granted it (control/budgets); each intent
reserves from that in its own commit. A default that nobody set bounds the run by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from control.core.meters import KINDS, MONEY, STEPS, TOKENS, UNDER_WAY, WALL_TIME, draws, meter
from control.core.moments import duration_ms, ms_of
from control.core.run import BUDGET_EXHAUSTED, RunFold
from skyagent.mission.v1 import mission_pb2 as mission
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st

DEFAULT_STEPS = 1000
"""Steps of a run whose mission says nothing of them."""


_NOUN = {MONEY: "money", TOKENS: "tokens", STEPS: "steps", WALL_TIME: "time"}
TOP_UP_OPTION = {MONEY: "--money USD", TOKENS: "--tokens N", STEPS: "--steps N", WALL_TIME: "--wall-time 10m"}
"""How each kind is given by the command line."""


@dataclass(frozen=True, slots=True)
class Shortage:
    """What a run lacks of a kind before it may go on; `grantable` when a budget may have it."""

    kind: str
    missing: int
    grantable: bool


@dataclass(frozen=True, slots=True)
class Source:
    """A budget that has too little left."""

    of_mission: bool
    limit: int
    left: int

    @property
    def whose(self) -> str:
        return "the mission's" if self.of_mission else "the tenant's"


def stated(limits: mission.Limits) -> dict[str, int]:
    """The limits that are stated, by kind."""
    amounts = {
        MONEY: limits.max_cost_microusd,
        TOKENS: limits.max_tokens,
        STEPS: limits.max_steps,
        WALL_TIME: duration_ms(limits.max_wall_time),
    }
    return {kind: amount for kind, amount in amounts.items() if amount > 0}


def used(folded: RunFold, kind: str, now_ms: int) -> int:
    """What a run has used and reserved of a kind."""
    state, found = folded.state, meter(folded.state, kind)
    if kind == WALL_TIME:
        return found.spent + _since(state, now_ms) if found is not None and draws(found) else folded.active_ms(now_ms)
    if found is not None:
        return found.spent + found.reserved
    return {STEPS: state.counts.attempts, MONEY: state.counts.cost_microusd}.get(kind, 0)


def own_limit(state: st.RunState, kind: str) -> int | None:
    """What bounds a run by itself; nothing where its mission's budget does, or nothing at all."""
    found = meter(state, kind)
    if found is not None and found.from_mission:
        return None
    own = stated(state.spec.limits).get(kind) or (DEFAULT_STEPS if kind == STEPS else 0)
    return own + (found.topped_up if found else 0) if own else None


def limit(state: st.RunState, kind: str) -> int | None:
    """What a run may use of a kind in all; nothing when nothing bounds it."""
    found, own = meter(state, kind), own_limit(state, kind)
    if found is None or not draws(found):
        return own
    return found.allotted if own is None else min(own, found.allotted)


def shortage(folded: RunFold, now_ms: int) -> Shortage | None:
    """What a run lacks for its next step: one step, and any time at all; of money and tokens none may be overdrawn."""
    for kind in KINDS:
        taken = used(folded, kind, now_ms)
        if kind in (STEPS, WALL_TIME) or taken:
            lacks = lacking(folded, kind, 1, now_ms)
            if lacks is not None:
                return lacks
    return None


def lacking(folded: RunFold, kind: str, need: int, now_ms: int) -> Shortage | None:
    """What a run lacks of a kind when it needs so much of it at once, for instance for a model call."""
    state, wanted = folded.state, used(folded, kind, now_ms) + need
    bound, own = limit(state, kind), own_limit(state, kind)
    if bound is None or wanted <= bound:
        return None
    grantable = draws(meter(state, kind)) and (own is None or wanted <= own)
    return Shortage(kind, wanted - bound, grantable)


def exhausted(folded: RunFold, lacks: Shortage) -> ev.EventBody:
    """Says that a run has used up what it may use by itself, how much it lacks, and how it goes on."""
    state, kind = folded.state, lacks.kind
    may = amount(kind, limit(state, kind) or 0)
    why = f"this run's own limit of {_NOUN[kind]} is used up: it may use {may} and lacks {amount(kind, lacks.missing)}"
    return _blocked(f"{why}; {_gives_more(state, kind)}")


def refused(folded: RunFold, kind: str, missing: int, source: Source) -> ev.EventBody:
    """Says that a budget has too little left for a run, how much is missing, and how it goes on."""
    left = f"{figure(kind, source.left)} of {amount(kind, source.limit)}"
    why = f"{source.whose} budget of {_NOUN[kind]} is used up: {left} are left, the run lacks {amount(kind, missing)}"
    fix = _gives_more(folded.state, kind) if source.of_mission else f"`skyagent budgets set {kind} LIMIT` raises it"
    return _blocked(f"{why}; {fix}")


def amount(kind: str, units: int) -> str:
    """An amount for a person: "$1.50", "90 s", "1,000 tokens", "1 step"."""
    if kind in (MONEY, WALL_TIME):
        return figure(kind, units)
    return f"{units:,} {_NOUN[kind] if units != 1 else _NOUN[kind].removesuffix('s')}"


def figure(kind: str, units: int) -> str:
    """The same where it is clear what it is of: "1,000" tokens."""
    if kind == MONEY:
        dollars, _, cents = f"{units / 1_000_000:,.6f}".rstrip("0").partition(".")
        return f"${dollars}.{cents.ljust(2, '0')}"
    if kind == WALL_TIME:
        return f"{units / 1000:,.1f}".removesuffix(".0") + " s"
    return f"{units:,}"


def _gives_more(state: st.RunState, kind: str) -> str:
    return f"`skyagent runs topup {state.run_id} {TOP_UP_OPTION[kind]}` gives more"


def _blocked(detail: str) -> ev.EventBody:
    return ev.EventBody(run_blocked=ev.RunBlocked(reason=BUDGET_EXHAUSTED, detail=detail))


def limits_in_force(state: st.RunState) -> mission.Limits | None:
    """The limits of a run when they are not those of its spec any more, as policies look at them."""
    if not state.meters:
        return None
    limits = mission.Limits()
    limits.CopyFrom(state.spec.limits)
    for found in state.meters:
        bound = limit(state, found.kind)
        if bound is not None:
            _set(limits, found.kind, bound)
    return limits


def _set(limits: mission.Limits, kind: str, bound: int) -> None:
    if kind == STEPS:
        limits.max_steps = min(bound, 2**32 - 1)
    elif kind == MONEY:
        limits.max_cost_microusd = bound
    elif kind == TOKENS:
        limits.max_tokens = bound
    else:
        limits.max_wall_time.FromMilliseconds(bound)


def _since(state: st.RunState, now_ms: int) -> int:
    """The time since the last event, while it is the run's own."""
    return max(0, now_ms - ms_of(state.update_time)) if state.phase in UNDER_WAY else 0
