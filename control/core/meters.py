"""What a run may use and has used, by kind: the part of the fold that counts.

Amounts are in the kind's own unit: millionths of a US dollar, tokens, steps, milliseconds. A meter is there only for a
kind that a budget or a person's top-up is about; every event that changes it stands in the run's own journal.
"""

from __future__ import annotations

from typing import NamedTuple

from control.core.moments import ms_of
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st

MONEY, TOKENS, STEPS, WALL_TIME = "money", "tokens", "steps", "wall_time"
KINDS = (MONEY, TOKENS, STEPS, WALL_TIME)

CALLS_SINCE_FOLD = 2
"""Journals of an earlier fold say nothing of model calls that are under way."""

LONGEST_GAP_MS = 86_400_000
"""Two events of a run that is under way are not further apart; when they are, somebody has set a clock."""

UNDER_WAY = frozenset({ev.RUN_PHASE_RUNNING, ev.RUN_PHASE_PAUSING, ev.RUN_PHASE_CANCELLING})
"""Phases whose time is the run's own: not those in which it stands still for a person or has no owner."""


def meter(state: st.RunState, kind: str) -> st.Meter | None:
    """The meter of a kind, if there is one."""
    return next((found for found in state.meters if found.kind == kind), None)


def draws(found: st.Meter | None) -> bool:
    """Whether a run may use only what it was granted of a kind."""
    return found is not None and (found.from_mission or found.from_tenant)


def budgeted(state: st.RunState, body: ev.RunBudgeted) -> None:
    """The run draws from budgets from now on."""
    for draw in body.draws:
        if (found := _metered(state, draw.kind)) is not None:
            found.from_mission |= draw.from_mission
            found.from_tenant |= draw.from_tenant


def granted(state: st.RunState, body: ev.BudgetGranted) -> None:
    """A grant counts once, however often it is told."""
    if body.grant_id in state.grant_ids:
        return
    if (found := _metered(state, body.kind)) is not None:
        state.grant_ids.append(body.grant_id)
        found.allotted += body.amount
        found.topped_up += body.amount if body.top_up else 0


def topped_up(state: st.RunState, kind: str, amount: int) -> None:
    """A person gave more. Where the run draws from budgets, the grant that comes with it counts instead."""
    found = _metered(state, kind)
    if found is not None and not draws(found):
        found.topped_up += amount


def step_begun(state: st.RunState) -> None:
    """An attempt was intended."""
    _add(state, STEPS, reserved=1)


def step_ended(state: st.RunState, *, spent: int) -> None:
    """An open attempt is open no more; one that was withdrawn unsent has used nothing."""
    _add(state, STEPS, reserved=-1, spent=spent)


def passed(state: st.RunState, event: ev.RunEvent) -> None:
    """Time has gone by since the last event; before a new owner came nobody worked."""
    if state.phase in UNDER_WAY and not event.body.HasField("owner_changed"):
        gap_ms = ms_of(event.time) - ms_of(state.update_time)
        _add(state, WALL_TIME, spent=min(max(0, gap_ms), LONGEST_GAP_MS))


def call_begun(state: st.RunState, body: ev.ModelCallIntended) -> None:
    """A model call reserves what it may cost; the same call reserves once."""
    if state.fold_version < CALLS_SINCE_FOLD or _call(state, body.call_id) is not None:
        return
    state.calls.add(
        call_id=body.call_id, reserved_microusd=body.reserved_microusd, reserved_tokens=body.reserved_tokens
    )
    _add(state, MONEY, reserved=body.reserved_microusd)
    _add(state, TOKENS, reserved=body.reserved_tokens)


class Charge(NamedTuple):
    """What a model call has used."""

    microusd: int
    tokens: int


def call_ended(state: st.RunState, body: ev.ModelCallFinished) -> int:
    """Settles a model call; returns the microusd that it cost. Unknown cost settles at the full reservation."""
    call = _call(state, body.call_id)
    if call is None:
        return body.cost_microusd
    used = Charge(body.cost_microusd, body.input_tokens + body.output_tokens)
    charge = Charge(call.reserved_microusd, call.reserved_tokens) if body.cost_unknown else used
    _settle(state, call, charge)
    return charge.microusd


def ended(state: st.RunState) -> None:
    """The run has ended: of a call that never came back nobody will learn what it cost."""
    for call in list(state.calls):
        _settle(state, call, Charge(call.reserved_microusd, call.reserved_tokens))


def _settle(state: st.RunState, call: st.OpenCall, charge: Charge) -> None:
    _add(state, MONEY, reserved=-call.reserved_microusd, spent=charge.microusd)
    _add(state, TOKENS, reserved=-call.reserved_tokens, spent=charge.tokens)
    state.calls.remove(call)


def _call(state: st.RunState, call_id: str) -> st.OpenCall | None:
    return next((call for call in state.calls if call.call_id == call_id), None)


def _add(state: st.RunState, kind: str, *, reserved: int = 0, spent: int = 0) -> None:
    found = meter(state, kind)
    if found is not None:
        found.reserved = max(0, found.reserved + reserved)
        found.spent += spent


def _metered(state: st.RunState, kind: str) -> st.Meter | None:
    """The meter of a kind, begun with what the run has used so far; nothing for a kind that is not known here."""
    if kind not in KINDS:
        return None
    found = meter(state, kind)
    if found is None:
        found = state.meters.add(kind=kind)
        counts = state.counts
        if kind == STEPS:
            found.reserved = counts.open_intents
            found.spent = max(0, counts.attempts - counts.open_intents)
        elif kind == MONEY:
            found.spent = counts.cost_microusd
            found.reserved = sum(call.reserved_microusd for call in state.calls)
        elif kind == TOKENS:
            found.reserved = sum(call.reserved_tokens for call in state.calls)
    return found
