"""Budgets of the tenant and of missions, and what they granted to runs: escrow.

A budget grants allotments to runs; a run uses nothing that it was not granted, and what it leaves goes back once it has
ended. A grant is two commits: the budget's, here, and the run's own event. Whoever is killed between them has lost
nothing: the grant has an id that its run asks for again, and what a run never heard of comes back when it has ended.
"""

from control.budgets.escrow import Escrow, shared_escrow
from control.budgets.rows import Ask, Budget, BudgetKey, BudgetPage, Granted, Held, Outlook, Refused, TopUp
from control.budgets.statements import first_budgets

__all__ = [
    "Ask",
    "Budget",
    "BudgetKey",
    "BudgetPage",
    "Escrow",
    "Granted",
    "Held",
    "Outlook",
    "Refused",
    "TopUp",
    "first_budgets",
    "shared_escrow",
]
