"""The invoice table in Django's admin: stock pages; only the listed columns and the searched fields are named."""

from django.contrib import admin

from evals.sites.ledger.models import Invoice

admin.site.register(
    Invoice,
    list_display=("number", "supplier", "issued", "category", "amount", "currency", "paid"),
    search_fields=("number", "supplier"),
)
