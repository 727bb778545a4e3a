"""How Django knows this application."""

from django.apps import AppConfig


class LedgerConfig(AppConfig):
    """The application `ledger`; its pages live below /admin/ledger/invoice/."""

    name = "evals.sites.ledger"
    label = "ledger"
    verbose_name = "Accounts payable"
    default_auto_field = "django.db.models.BigAutoField"
