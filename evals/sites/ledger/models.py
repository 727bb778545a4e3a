"""The one table of the application."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from django.db import models


class Category(models.TextChoices):
    """What the money was spent on; the form shows the label and submits the value."""

    OFFICE = "office", "Office supplies"
    TRAVEL = "travel", "Travel and lodging"
    SOFTWARE = "software", "Software and licences"
    EQUIPMENT = "equipment", "Machines and equipment"
    CONSULTING = "consulting", "Consulting"
    UTILITIES = "utilities", "Energy and water"


class Currency(models.TextChoices):
    """ISO 4217 codes that the ledger accepts."""

    EUR = "EUR", "EUR"
    USD = "USD", "USD"
    GBP = "GBP", "GBP"
    CHF = "CHF", "CHF"
    PLN = "PLN", "PLN"


class Invoice(models.Model):
    """A purchase invoice.

    `number` is not unique on purpose: if the database refused a second row, finding no duplicates would prove nothing.
    """

    number: models.CharField[str, str] = models.CharField("invoice number", max_length=32)
    supplier: models.CharField[str, str] = models.CharField(max_length=120)
    email: models.EmailField[str, str] = models.EmailField("contact email")
    issued: models.DateField[date, date] = models.DateField("issue date")
    category: models.CharField[str, str] = models.CharField(max_length=16, choices=Category)
    amount: models.DecimalField[Decimal, Decimal] = models.DecimalField(max_digits=12, decimal_places=2)
    currency: models.CharField[str, str] = models.CharField(max_length=3, choices=Currency, default=Currency.EUR)
    paid: models.BooleanField[bool, bool] = models.BooleanField(default=False)
    notes: models.TextField[str, str] = models.TextField(blank=True)

    class Meta:
        """Newest first."""

        ordering = ("-id",)

    def __str__(self) -> str:
        return self.number
