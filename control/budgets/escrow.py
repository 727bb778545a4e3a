"""Budgets on the database of this process: each method is one transaction, and does the same when it is done twice."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from control.budgets import statements
from control.budgets.rows import Ask, Budget, BudgetKey, BudgetPage, Granted, Held, Outlook, Refused, TopUp
from infra.clock import Clock
from infra.db import Database, shared_database
from infra.errors import InvalidArgument, Violation

if TYPE_CHECKING:
    from infra.mesh import Runtime

_SHOWN = 100
"""Allotments that one look at a budget shows."""


@dataclass(frozen=True, slots=True)
class Escrow:
    """Every budget, whoever's it is; callers say for which tenant they act."""

    database: Database
    clock: Clock

    async def ask(self, asked: Ask) -> Granted | Refused:
        """A run asks for more. The same grant_id is granted once, by whoever asks."""
        now_ms = self.clock.now_ms()
        return await self.database.transact(lambda connection: statements.ask(connection, asked, now_ms))

    async def outlook(self, asked: Ask) -> Outlook:
        """How an ask would go; costs no commit."""
        return await self.database.read(lambda connection: statements.outlook(connection, asked))

    async def top_up(self, given: TopUp) -> Granted:
        """Raises Exhausted, or Precondition for a run that has ended."""
        now_ms = self.clock.now_ms()
        return await self.database.transact(lambda connection: statements.top_up(connection, given, now_ms))

    async def settle(self, run_id: str, used: Mapping[str, int]) -> Sequence[Held]:
        """A run has ended: gives back what it left, once. Returns what this very call settled."""
        return await self.database.transact(lambda connection: statements.settle(connection, run_id, used))

    async def unsettled(self, *, limit: int = 100) -> Sequence[str]:
        """Runs that have ended and still hold allotments, because whoever ended them died."""
        return await self.database.read(lambda connection: statements.unsettled(connection, limit))

    async def set_limit(self, key: BudgetKey, amount: int, actor: str) -> Budget:
        """Raises Precondition BUDGET_IN_USE for less than is granted and not given back."""
        now_ms = self.clock.now_ms()
        return await self.database.transact(
            lambda connection: statements.set_limit(connection, key, amount, actor, now_ms)
        )

    async def raise_mission(self, key: BudgetKey, amount: int, request_id: str, actor: str) -> Budget:
        """Raises the budget of a mission once for each request. Raises NotFound where there is none."""
        now_ms = self.clock.now_ms()
        return await self.database.transact(
            lambda connection: statements.raise_mission(connection, key, amount, request_id, actor, now_ms)
        )

    async def bound(self, tenant: str, mission_id: str) -> Sequence[Budget]:
        """The budgets that a new run of a mission draws from."""
        return await self.database.read(lambda connection: statements.bound(connection, tenant, mission_id))

    async def find(self, key: BudgetKey) -> Budget:
        """Raises NotFound."""
        found = await self.database.read(lambda connection: statements.find(connection, key))
        if found is None:
            raise statements.no_budget(key)
        return found

    async def held(self, key: BudgetKey) -> Sequence[Held]:
        """What runs were granted of a budget, newest run first; not all of very many."""
        return await self.database.read(lambda connection: statements.held(connection, key, _SHOWN))

    async def page(self, tenant: str, *, mission_id: str, page_size: int, page_token: str) -> BudgetPage:
        """Budgets of a tenant: its own first, then those of missions, newest mission first."""
        after = _after(page_token) if page_token else None
        found = await self.database.read(
            lambda connection: statements.page(connection, tenant, mission_id, after, page_size + 1)
        )
        last = found[page_size - 1] if len(found) > page_size else None
        return BudgetPage(tuple(found[:page_size]), f"{last.mission_id}/{last.kind}" if last else "")


@asynccontextmanager
async def shared_escrow(runtime: Runtime) -> AsyncGenerator[Escrow]:
    """The one of this process."""
    yield Escrow(await runtime.shared(shared_database), runtime.clock)


def _after(page_token: str) -> tuple[str, str]:
    mission_id, slash, kind = page_token.partition("/")
    if not slash:
        raise InvalidArgument(Violation("page_token", "give the one of an earlier answer, as it was"))
    return mission_id, kind
