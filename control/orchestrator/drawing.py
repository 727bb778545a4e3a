"""A run that has not enough left asks its budgets for more; what it leaves goes back once it has ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from control.budgets import Ask, Escrow, Granted, Refused
from control.core.budget import Source, own_limit, refused
from control.core.meters import KINDS, MONEY, STEPS, TOKENS, WALL_TIME, draws, meter
from control.core.moves import Draw
from control.core.run import BUDGET_EXHAUSTED, RunFold, terminal
from control.journal import Journal
from control.journal.erasure import RunErased
from control.journal.folding import folded_run
from control.orchestrator.ledger import Ledger
from infra.clock import Clock
from infra.errors import Internal, SkyError
from infra.log import event_logger
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st

PORTION = {STEPS: 100, MONEY: 1_000_000, TOKENS: 100_000, WALL_TIME: 600_000}
"""What a run asks for at once, when it needs less: a grant is two commits, and what one run holds no other can use."""
MOST = 2**62
"""More than any grant: what settles is bounded by what was granted."""
LOOK_SECONDS = 5.0
"""How often somebody looks for runs that ended and gave nothing back, because who drove them died."""

log = event_logger(__name__)


@dataclass(frozen=True, slots=True)
class Drawing:
    """What one run draws from budgets."""

    ledger: Ledger
    escrow: Escrow

    async def draw(self, move: Draw) -> bool:
        """Gets more, or says why there is none; whether the run may look again at once."""
        state = self.ledger.state
        asked = _ask(state, move)
        outlook = await self.escrow.outlook(asked)
        unheard = [grant for grant in outlook.grants if grant.grant_id not in state.grant_ids]
        if not unheard and outlook.refused is None:
            answer = await self.escrow.ask(asked)
            unheard = [answer] if isinstance(answer, Granted) else []
            outlook = outlook if unheard else await self.escrow.outlook(asked)
        if unheard:
            await self.ledger.commit_now(lambda folded: _granted(folded, move.kind, unheard))
            return True
        if outlook.refused is not None:
            await self._refused(move, outlook.refused)
        return False

    async def give_back(self) -> None:
        """The run has ended: what it did not use goes back; at the next look, when it cannot be written now."""
        try:
            await settle(self.escrow, self.ledger.state)
        except SkyError as error:
            log.warning("budget.not_returned", run_id=self.ledger.head.run_id, error=error)

    async def _refused(self, move: Draw, why: Refused) -> None:
        budget = why.budget
        source = Source(bool(budget and budget.mission_id), budget.limit_amount if budget else 0, why.left)
        event = refused(self.ledger.folded, move.kind, move.need, source)
        log.info("budget.exhausted", run_id=self.ledger.head.run_id, kind=move.kind, detail=event.run_blocked.detail)
        await self.ledger.commit_now(lambda folded: () if _said(folded) else (event,))


def _ask(state: st.RunState, move: Draw) -> Ask:
    """The next grant of a kind. Its id follows from those that the run has heard of, so that it is asked for once."""
    kind, found, own = move.kind, meter(state, move.kind), own_limit(state, move.kind)
    if found is None:
        raise Internal("NO_METER", f"run {state.run_id} would draw {kind} from a budget without a meter of it")
    before = sum(grant_id.startswith(f"{state.run_id}:{kind}:") for grant_id in state.grant_ids)
    room = PORTION[kind] if own is None else min(PORTION[kind], own - found.allotted)
    return Ask(
        grant_id=f"{state.run_id}:{kind}:{before + 1}",
        run_id=state.run_id,
        tenant=state.tenant,
        mission_id=state.mission_id,
        kind=kind,
        from_mission=found.from_mission,
        from_tenant=found.from_tenant,
        need=move.need,
        want=max(move.need, room),
    )


def _granted(folded: RunFold, kind: str, grants: Iterable[Granted]) -> Sequence[ev.EventBody]:
    """The grants that the run has not heard of, as its own events."""
    if terminal(folded.state.phase):
        return ()
    new = [grant for grant in grants if grant.grant_id not in folded.state.grant_ids]
    told = [
        ev.BudgetGranted(grant_id=grant.grant_id, kind=kind, amount=grant.amount, top_up=grant.top_up) for grant in new
    ]
    return [ev.EventBody(budget_granted=each) for each in told]


def _said(folded: RunFold) -> bool:
    return folded.state.blocked_reason == BUDGET_EXHAUSTED or terminal(folded.state.phase)


async def settle(escrow: Escrow, state: st.RunState) -> None:
    """Gives back what a run that has ended left of its allotments. Whoever comes second changes nothing."""
    if not any(draws(found) for found in state.meters):
        return
    for held in await escrow.settle(state.run_id, {found.kind: found.spent for found in state.meters}):
        log.info(
            "budget.returned", run_id=held.run_id, kind=held.kind, spent=held.spent, amount=held.granted - held.spent
        )


@dataclass(frozen=True, slots=True)
class Returns:
    """Ends what was left half done: runs that ended while nobody gave back what they had."""

    journal: Journal
    escrow: Escrow
    clock: Clock

    async def run(self) -> None:
        """Looks now and then, until cancelled."""
        while True:
            try:
                await self.look()
            except SkyError as error:  # the database is away or full: there will be another look
                log.warning("budget.not_looked", error=error)
            await self.clock.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Settles every run that has ended and still holds something."""
        for run_id in await self.escrow.unsettled():
            try:
                used = await self._used(run_id)
            except SkyError as error:  # one that cannot be read must not keep the others
                log.warning("budget.not_returned", run_id=run_id, error=error)
                continue
            held = await self.escrow.settle(run_id, used)
            log.info("budget.settled_late", run_id=run_id, kinds=[one.kind for one in held])

    async def _used(self, run_id: str) -> dict[str, int]:
        """What is not known any more counts as used: it must not be granted again."""
        try:
            state = (await folded_run(self.journal, run_id)).folded.state
        except RunErased:
            return dict.fromkeys(KINDS, MOST)
        return {found.kind: found.spent for found in state.meters}
