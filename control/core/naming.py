"""How alike two names of a field are: "Invoice no." and "invoice number", "Vendor" and "Supplier". Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from types import MappingProxyType

from control.core.values import fold

SURE = 0.9
"""From here on two names are the same to a person."""
LIKELY = 0.55
"""From here on two names may be taken for the same when nothing else is nearer."""
_ALIKE = 0.8

# Words that stand for each other; the first of a line is the one that is compared.
_WORDS = """
number no nr num № # nummer
email mail e-mail
phone telephone tel mobile cell fax
quantity qty count units
amount total sum price cost value gross net betrag summe
supplier vendor seller payee creditor lieferant
customer client buyer debtor kunde
company organisation organization firm business org firma
date day dated on datum
issue issued invoiced created
due payable deadline
notes note remarks remark comment comments memo message description desc details bemerkung
category type kind class group kategorie
currency ccy curr währung
address addr street anschrift
postal zip postcode plz
city town ort
country nation land
state province region
given first forename vorname
family last surname nachname
birth born birthday dob
username user login account
paid settled bezahlt
reference ref
identifier id
url website web link homepage
"""
_CANONICAL = MappingProxyType({word: line.split()[0] for line in _WORDS.splitlines() if line for word in line.split()})
_IDLE = frozenset(
    {"the", "a", "an", "of", "for", "your", "please", "enter", "required", "optional", "der", "die", "das"}
)
_JOINED = MappingProxyType({"e mail": "email", "post code": "postcode", "user name": "username"})


@dataclass(frozen=True, slots=True)
class Likeness:
    """From 0 (nothing in common) to 1 (the same), and why in a few words."""

    score: float
    why: str


@lru_cache(maxsize=4096)
def tokens(name: str) -> tuple[str, ...]:
    """The words of a label, heading or attribute: "postalCode", "postal_code" and "Postal code:" give the same."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    folded = re.sub(r"[_\-./:*?!()\[\],;\"']+", " ", fold(apart))
    text = " ".join(folded.split())
    for parts, word in _JOINED.items():
        text = re.sub(rf"\b{parts}\b", word, text)
    words = tuple(word for word in text.split() if word not in _IDLE)
    return words or tuple(text.split())


def meaning(name: str) -> tuple[str, ...]:
    """Its words with each synonym replaced by the one word that stands for it."""
    return tuple(_CANONICAL.get(word, word) for word in tokens(name))


def likeness(one: str, other: str) -> Likeness:
    """How alike two names are. Symmetric; 1 for names that differ only in case, spacing and punctuation."""
    left, right = tokens(one), tokens(other)
    if not left or not right:
        return Likeness(0.0, "nothing to compare")
    if left == right:
        return Likeness(1.0, "the same name")
    left, right = meaning(one), meaning(other)
    if sorted(left) == sorted(right):
        return Likeness(0.95, "the same in other words")
    shared = set(left) & set(right)
    if shared:
        smaller, union = min(len(set(left)), len(set(right))), len(set(left) | set(right))
        score = 0.4 * len(shared) / smaller + 0.5 * len(shared) / union
        return Likeness(round(score, 4), f"share {' '.join(word for word in left if word in shared)!r}")
    spelled = _spelling(left, right)
    return (
        Likeness(round(0.85 * spelled, 4), "spelled alike") if spelled >= _ALIKE else Likeness(0.0, "nothing in common")
    )


def _spelling(left: Sequence[str], right: Sequence[str]) -> float:
    # SequenceMatcher depends on the order of its arguments; likeness must not.
    one, other = sorted((" ".join(left), " ".join(right)))
    matcher = SequenceMatcher(a=one, b=other, autojunk=False)
    return matcher.ratio() if matcher.quick_ratio() >= _ALIKE else 0.0
