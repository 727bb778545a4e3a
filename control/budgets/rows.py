"""What is asked of budgets, and what they answer. Amounts are in the kind's own unit (control.core.meters)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BudgetKey:
    """Which budget; without a mission the tenant's own."""

    tenant: str
    kind: str
    mission_id: str = ""


@dataclass(frozen=True, slots=True)
class Budget:
    """A budget as it stands. `granted` and `returned` are of all time; `spent` is of runs that have ended."""

    tenant: str
    mission_id: str
    kind: str
    limit_amount: int
    granted: int
    returned: int
    spent: int
    updated_ms: int
    actor: str

    @property
    def left(self) -> int:
        """What can still be granted."""
        return self.limit_amount - self.granted + self.returned

    @property
    def allotted(self) -> int:
        """What runs that have not ended hold."""
        return self.granted - self.returned - self.spent


@dataclass(frozen=True, slots=True)
class BudgetPage:
    """Some budgets, and how to ask for the next ones; an empty token ends the list."""

    budgets: tuple[Budget, ...]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class Held:
    """What one run was granted of a kind, and, once it is settled, what it used of that."""

    run_id: str
    kind: str
    tenant: str
    mission_id: str
    from_mission: bool
    from_tenant: bool
    granted: int
    spent: int
    settled: bool


@dataclass(frozen=True, slots=True)
class Ask:
    """A run asks for `need` at least and `want` at most. The same grant_id is granted once."""

    grant_id: str
    run_id: str
    tenant: str
    mission_id: str
    kind: str
    from_mission: bool
    from_tenant: bool
    need: int
    want: int

    @property
    def keys(self) -> tuple[BudgetKey, ...]:
        """The budgets that it draws from, always in this order: whoever locks them never waits in a circle."""
        tenant = (BudgetKey(self.tenant, self.kind),) if self.from_tenant else ()
        mission = (BudgetKey(self.tenant, self.kind, self.mission_id),) if self.from_mission else ()
        return tenant + mission


@dataclass(frozen=True, slots=True)
class Granted:
    """A grant that is durable in its budgets; its run hears of it by an event of its own."""

    grant_id: str
    amount: int
    top_up: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """A budget has less left than is needed."""

    budget: Budget | None
    left: int
    """Of the budget that has the least."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """How an ask would go: grants that the run may not have heard of, and why there would be none."""

    grants: tuple[Granted, ...]
    refused: Refused | None


@dataclass(frozen=True, slots=True)
class TopUp:
    """A person gives a run more: `ask` of exactly that, and the mission's budget grows by as much."""

    ask: Ask
    actor: str
