"""Django's own admin, unmodified, over one table of purchase invoices: the application of the proof mission."""

from evals.sites.ledger.process import FORM_PATH, LIST_PATH, SAVES, Account, Decoy, Ledger, decoy, running

__all__ = ["FORM_PATH", "LIST_PATH", "SAVES", "Account", "Decoy", "Ledger", "decoy", "running"]
