"""SQL of escrow; each function runs inside its caller's transaction, and locks budgets before allotments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import sqlalchemy as sa

from control.budgets.rows import Ask, Budget, BudgetKey, Granted, Held, Outlook, Refused, TopUp
from control.budgets.schema import allotments, budgets, grants, raises
from control.journal.schema import runs
from infra.db import insert_absent
from infra.errors import AlreadyExists, Exhausted, NotFound, Precondition


def first_budgets(
    tenant: str, mission_id: str, limits: Mapping[str, int], actor: str, now_ms: int
) -> Sequence[sa.Executable]:
    """The statements that make the budgets of a new mission, for the transaction that creates it."""
    keys = [BudgetKey(tenant, kind, mission_id) for kind in sorted(limits)]
    return [sa.insert(budgets).values(_new(key, limits[key.kind], actor, now_ms)) for key in keys]


def find(connection: sa.Connection, key: BudgetKey, *, locked: bool = False) -> Budget | None:
    """One budget; locked, nobody changes it before the transaction ends."""
    chosen = sa.select(budgets).where(_is(key))
    row = connection.execute(chosen.with_for_update() if locked else chosen).mappings().one_or_none()
    return None if row is None else Budget(**row)


def bound(connection: sa.Connection, tenant: str, mission_id: str) -> Sequence[Budget]:
    """The budgets that a new run of a mission draws from."""
    chosen = sa.select(budgets).where(budgets.c.tenant == tenant, budgets.c.mission_id.in_(["", mission_id]))
    return [Budget(**row) for row in connection.execute(chosen.order_by(budgets.c.kind)).mappings()]


def page(
    connection: sa.Connection, tenant: str, mission_id: str, after: tuple[str, str] | None, limit: int
) -> list[Budget]:
    """Budgets of a tenant: its own first, then by mission, newest first."""
    own = sa.case((budgets.c.mission_id == "", 0), else_=1)
    chosen = sa.select(budgets).where(budgets.c.tenant == tenant)
    if mission_id:
        chosen = chosen.where(budgets.c.mission_id == mission_id)
    if after is not None:
        chosen = chosen.where(_comes_after(*after))
    chosen = chosen.order_by(own, budgets.c.mission_id.desc(), budgets.c.kind).limit(limit)
    return [Budget(**row) for row in connection.execute(chosen).mappings()]


def held(connection: sa.Connection, key: BudgetKey, limit: int) -> list[Held]:
    """What runs were granted of a budget, newest run first."""
    chosen = sa.select(allotments).where(allotments.c.tenant == key.tenant, allotments.c.kind == key.kind)
    if key.mission_id:
        chosen = chosen.where(allotments.c.mission_id == key.mission_id, allotments.c.from_mission)
    else:
        chosen = chosen.where(allotments.c.from_tenant)
    rows = connection.execute(chosen.order_by(allotments.c.run_id.desc()).limit(limit)).mappings()
    return [Held(**row) for row in rows]


def set_limit(connection: sa.Connection, key: BudgetKey, amount: int, actor: str, now_ms: int) -> Budget:
    """Raises Precondition BUDGET_IN_USE for less than is granted and not given back."""
    insert_absent(connection, budgets, [_new(key, amount, actor, now_ms)])
    found = _locked(connection, key)
    in_use = found.granted - found.returned
    if amount < in_use:
        raise Precondition(
            "BUDGET_IN_USE",
            f"runs hold or have used {in_use} of this budget of {key.kind}: set it to that at least, or wait for them",
            in_use=str(in_use),
        )
    if amount != found.limit_amount:
        change = {"limit_amount": amount, "actor": actor, "updated_ms": now_ms}
        connection.execute(sa.update(budgets).where(_is(key)).values(change))
    return _locked(connection, key)


def ask(connection: sa.Connection, asked: Ask, now_ms: int) -> Granted | Refused:
    """Grants once; half of what is left at most, so that one run does not keep all others out, but what is needed."""
    found = [find(connection, key, locked=True) for key in asked.keys]
    known = _grant(connection, asked.grant_id)
    if known is not None:
        return known
    refused = _refused(found, asked.need)
    if refused is not None:
        return refused
    left = min(budget.left for budget in found if budget is not None)
    granted = Granted(asked.grant_id, min(asked.want, max(asked.need, left // 2)))
    _hand_out(connection, asked, granted, now_ms)
    return granted


def outlook(connection: sa.Connection, asked: Ask) -> Outlook:
    """How an ask would go; writes nothing."""
    chosen = sa.select(grants).where(grants.c.run_id == asked.run_id, grants.c.kind == asked.kind)
    told = tuple(_granted(row) for row in connection.execute(chosen.order_by(grants.c.created_ms)).mappings())
    found = [find(connection, key) for key in asked.keys]
    return Outlook(told, _refused(found, asked.need))


def top_up(connection: sa.Connection, given: TopUp, now_ms: int) -> Granted:
    """Raises Exhausted when the tenant's budget has not so much left, RunEnded's like for a run that is settled."""
    asked = given.ask
    found = [find(connection, key, locked=True) for key in asked.keys]
    known = _grant(connection, asked.grant_id)
    if known is not None:
        return _same(known, asked)
    for key, budget in zip(asked.keys, found, strict=True):
        if key.mission_id:
            _raise_by(connection, key, asked.need, given.actor, now_ms)
        elif budget is None or budget.left < asked.need:
            raise _tenant_lacks(asked, budget.left if budget else 0)
    granted = Granted(asked.grant_id, asked.need, top_up=True)
    _hand_out(connection, asked, granted, now_ms)
    return granted


def raise_mission(
    connection: sa.Connection, key: BudgetKey, amount: int, request_id: str, actor: str, now_ms: int
) -> Budget:
    """Raises a mission's budget once for each request. Raises NotFound for a mission that has none of that kind."""
    if find(connection, key, locked=True) is None:
        raise no_budget(key)
    asked = {"tenant": key.tenant, "request_id": request_id, "mission_id": key.mission_id, "kind": key.kind}
    by_request = sa.select(raises).where(raises.c.tenant == key.tenant, raises.c.request_id == request_id)
    known = connection.execute(by_request).mappings().one_or_none()
    if known is None:
        connection.execute(sa.insert(raises).values({**asked, "amount": amount}))
        _raise_by(connection, key, amount, actor, now_ms)
    elif dict(known) != {**asked, "amount": amount}:
        raise AlreadyExists("REQUEST_ID_REUSED", "this request_id topped up something else: make a new one")
    return _locked(connection, key)


def unsettled(connection: sa.Connection, limit: int) -> list[str]:
    """Runs that have ended and still hold allotments."""
    chosen = (
        sa.select(allotments.c.run_id)
        .join(runs, runs.c.run_id == allotments.c.run_id)
        .where(allotments.c.settled == sa.false(), runs.c.terminal == sa.true())
        .distinct()
        .limit(limit)
    )
    return list(connection.execute(chosen).scalars())


def settle(connection: sa.Connection, run_id: str, used: Mapping[str, int]) -> list[Held]:
    """Gives back what a run has left of every kind, once; returns what was settled now."""
    chosen = sa.select(allotments).where(allotments.c.run_id == run_id, allotments.c.settled == sa.false())
    mine = [Held(**row) for row in connection.execute(chosen.order_by(allotments.c.kind)).mappings()]
    settled = [_settled(connection, one, used.get(one.kind, 0)) for one in mine]
    return [one for one in settled if one is not None]


def no_budget(key: BudgetKey) -> NotFound:
    """What somebody is told who asks for a budget that there is not."""
    whose = f"mission {key.mission_id} has" if key.mission_id else "your tenant has"
    fix = "an administrator makes one with `skyagent budgets set`"
    return NotFound("BUDGET_NOT_FOUND", f"{whose} no budget of {key.kind}; {fix}", kind=key.kind)


def _settled(connection: sa.Connection, mine: Held, used: int) -> Held | None:
    whose = Ask("", mine.run_id, mine.tenant, mine.mission_id, mine.kind, mine.from_mission, mine.from_tenant, 0, 0)
    for key in whose.keys:
        _locked(connection, key)
    is_open = sa.and_(
        allotments.c.run_id == mine.run_id, allotments.c.kind == mine.kind, allotments.c.settled == sa.false()
    )
    row = connection.execute(sa.select(allotments).where(is_open).with_for_update()).mappings().one_or_none()
    if row is None:
        return None  # somebody else was first
    now = Held(**row)
    granted, spent = now.granted, min(used, now.granted)
    connection.execute(sa.update(allotments).where(is_open).values(settled=True, spent=spent))
    for key in whose.keys:
        back = {"returned": budgets.c.returned + granted - spent, "spent": budgets.c.spent + spent}
        connection.execute(sa.update(budgets).where(_is(key)).values(back))
    return replace(now, spent=spent, settled=True)


def _hand_out(connection: sa.Connection, asked: Ask, granted: Granted, now_ms: int) -> None:
    mine = {"run_id": asked.run_id, "kind": asked.kind}
    whose = {"tenant": asked.tenant, "mission_id": asked.mission_id}
    drawn = {"from_mission": asked.from_mission, "from_tenant": asked.from_tenant}
    insert_absent(connection, allotments, [{**mine, **whose, **drawn, "granted": 0, "spent": 0, "settled": False}])
    more = (
        sa.update(allotments)
        .where(allotments.c.run_id == asked.run_id, allotments.c.kind == asked.kind, allotments.c.settled == sa.false())
        .values(granted=allotments.c.granted + granted.amount)
    )
    if connection.execute(more).rowcount != 1:
        raise Precondition(
            "RUN_ENDED",
            f"run {asked.run_id} has ended and given back what it had: start another one",
            run_id=asked.run_id,
        )
    for key in asked.keys:
        out = sa.update(budgets).where(_is(key)).values(granted=budgets.c.granted + granted.amount)
        connection.execute(out)
    row = {"grant_id": granted.grant_id, "amount": granted.amount, "top_up": granted.top_up, "created_ms": now_ms}
    connection.execute(sa.insert(grants).values({**mine, **row}))


def _raise_by(connection: sa.Connection, key: BudgetKey, amount: int, actor: str, now_ms: int) -> None:
    change = {"limit_amount": budgets.c.limit_amount + amount, "actor": actor, "updated_ms": now_ms}
    if connection.execute(sa.update(budgets).where(_is(key)).values(change)).rowcount != 1:
        raise no_budget(key)


def _refused(found: Sequence[Budget | None], need: int) -> Refused | None:
    """The budget that has not enough, the tightest first."""
    if None in found:
        return Refused(None, 0)
    tightest = min((budget for budget in found if budget is not None), key=lambda budget: budget.left)
    return Refused(tightest, tightest.left) if tightest.left < need else None


def _same(known: Granted, asked: Ask) -> Granted:
    if known.amount != asked.need or not known.top_up:
        raise AlreadyExists("REQUEST_ID_REUSED", "this request_id topped up something else: make a new one")
    return known


def _tenant_lacks(asked: Ask, left: int) -> Exhausted:
    return Exhausted(
        "TENANT_BUDGET_EXHAUSTED",
        f"the tenant's budget of {asked.kind} has {left} left, {asked.need} are asked for: an administrator raises it"
        f" with `skyagent budgets set {asked.kind} LIMIT`",
        kind=asked.kind,
        left=str(left),
    )


def _grant(connection: sa.Connection, grant_id: str) -> Granted | None:
    row = connection.execute(sa.select(grants).where(grants.c.grant_id == grant_id)).mappings().one_or_none()
    return None if row is None else _granted(row)


def _granted(row: sa.RowMapping) -> Granted:
    return Granted(row["grant_id"], row["amount"], row["top_up"])


def _locked(connection: sa.Connection, key: BudgetKey) -> Budget:
    found = find(connection, key, locked=True)
    if found is None:
        raise no_budget(key)
    return found


def _new(key: BudgetKey, amount: int, actor: str, now_ms: int) -> dict[str, str | int]:
    named = {"tenant": key.tenant, "mission_id": key.mission_id, "kind": key.kind}
    return {
        **named,
        "limit_amount": amount,
        "granted": 0,
        "returned": 0,
        "spent": 0,
        "updated_ms": now_ms,
        "actor": actor,
    }


def _is(key: BudgetKey) -> sa.ColumnElement[bool]:
    return sa.and_(budgets.c.tenant == key.tenant, budgets.c.mission_id == key.mission_id, budgets.c.kind == key.kind)


def _comes_after(mission_id: str, kind: str) -> sa.ColumnElement[bool]:
    later = sa.and_(budgets.c.mission_id == mission_id, budgets.c.kind > kind)
    if not mission_id:  # after the tenant's own come those of every mission
        return sa.or_(later, budgets.c.mission_id != "")
    return sa.or_(later, sa.and_(budgets.c.mission_id < mission_id, budgets.c.mission_id != ""))
