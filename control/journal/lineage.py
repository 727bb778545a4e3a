"""Steps that must not happen twice among a run, its forks and theirs: one run at a time begins each.

A row says which run began a step last, under which number, and whether that attempt is open. It changes in the very
transaction that writes the intent, or the end of it. Another run may begin the step only once nothing is open, and only
when it knows of the last that was begun: else it is refused, finds out what came of that, and comes back. A first one
that certainly did nothing is nobody's; its number does not come back, so that nobody takes another for it.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, select

from control.core.lineage import Begun, begun_in
from control.journal.append import Append, Claim
from control.journal.archive import NO_ARCHIVES, Archives
from control.journal.errors import BegunElsewhere
from control.journal.queries import events
from control.journal.schema import lineage_steps
from infra.db import insert_absent
from infra.db.driver import Driver
from skyagent.run.v1 import event_pb2 as ev

_CLAIM = (
    "INSERT INTO lineage_steps (lineage, step_id, run_id, number, open) VALUES (?, ?, ?, 1, ?)"
    " ON CONFLICT (lineage, step_id) DO UPDATE"
    " SET run_id = excluded.run_id, number = lineage_steps.number + 1, open = excluded.open"
    " WHERE lineage_steps.run_id = excluded.run_id"
    " OR lineage_steps.run_id = ''"
    " OR (lineage_steps.open <> excluded.open AND lineage_steps.run_id = ? AND lineage_steps.number = ?)"
)
_BEGUN = "SELECT run_id, number, open FROM lineage_steps WHERE lineage = ? AND step_id = ?"
_FORGET = (
    "UPDATE lineage_steps SET run_id = '', open = ? WHERE lineage = ? AND step_id = ? AND run_id = ? AND number = 1"
)
_CLOSE = "UPDATE lineage_steps SET open = ? WHERE lineage = ? AND step_id = ? AND run_id = ?"


def claimed(driver: Driver, append: Append) -> BegunElsewhere | None:
    """Takes the steps that an append begins; why it may not, when another run has begun one of them."""
    for claim in append.claims:
        over = claim.over or Begun("", 0)
        taken = (claim.lineage, claim.step_id, append.run_id, True, over.run_id, over.number)
        if driver.execute(_CLAIM, taken).rowcount != 1:
            return BegunElsewhere(claim.step_id, _begun(driver, claim))
    return None


def release(driver: Driver, append: Append) -> None:
    """Closes the steps whose attempts an append ends."""
    for ended in append.releases:
        named = (ended.lineage, ended.step_id, append.run_id)
        if not (ended.nothing and driver.execute(_FORGET, (False, *named)).rowcount):
            driver.execute(_CLOSE, (False, *named))


def begun(connection: Connection, lineage: str) -> Mapping[str, Begun]:
    """Every step of a lineage that was begun and may have happened, by its id."""
    chosen = select(lineage_steps).where(lineage_steps.c.lineage == lineage, lineage_steps.c.run_id != "")
    return {row.step_id: Begun(row.run_id, row.number, row.open) for row in connection.execute(chosen)}


def enter(connection: Connection, lineage: str, run_id: str, archives: Archives = NO_ARCHIVES) -> None:
    """Takes over what a run began before it had relatives."""
    kinds = (
        ev.EventBody.STEP_INTENDED_FIELD_NUMBER,
        ev.EventBody.STEP_FINISHED_FIELD_NUMBER,
        ev.EventBody.STEP_WITHDRAWN_FIELD_NUMBER,
        ev.EventBody.STEP_UNCERTAIN_FIELD_NUMBER,
    )
    stored = events.of_kinds(connection, run_id, kinds, archives)
    bodies = (ev.EventBody.FromString(payload) for payload in stored if payload is not None)
    rows = [
        {"lineage": lineage, "step_id": step_id, "run_id": one.run_id, "number": one.number, "open": one.open}
        for step_id, one in begun_in(run_id, bodies).items()
    ]
    if rows:
        insert_absent(connection, lineage_steps, rows)


def _begun(driver: Driver, claim: Claim) -> Begun:
    row = driver.execute(_BEGUN, (claim.lineage, claim.step_id)).fetchone()
    return Begun(row[0], row[1], bool(row[2])) if row else Begun("", 0)
