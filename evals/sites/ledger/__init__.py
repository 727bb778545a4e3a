"""Django's own admin, unmodified, over one table of purchase invoices: the application of the proof mission."""

from evals.sites.ledger.process import Account, Decoy, Ledger, decoy, running

__all__ = ["Account", "Decoy", "Ledger", "decoy", "running"]
