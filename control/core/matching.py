"""Which column of a table belongs into which field of a form, and which heading of a list shows it. Pure.

Pairs are one to one: sure ones first, then the assignment with the highest sum of scores. What is not sure is
reported instead of guessed: two fields that fit a column equally well, columns without a field, required fields without
a column.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from control.core.naming import LIKELY, SURE, Likeness, likeness
from control.core.values import dates, fold, money, same_value, truth
from infra.errors import InvalidArgument, Violation
from skyagent.execution.v1.browser_pb2 import FormField

__all__ = [
    "Ambiguity",
    "Matching",
    "Pair",
    "header_matches",
    "match_fields",
    "match_header",
    "parse_mapping",
    "same_value",
]

_MARGIN = 0.05
_MAX_GROUP = 400
_TYPE_ALONE = 0.56
_NOT_FILLED = frozenset({"hidden", "submit", "button", "image", "reset", "file"})
_AUTOCOMPLETE = MappingProxyType(
    {
        "tel": "phone", "cc-number": "card number", "bday": "date of birth", "organization": "company",
        "street-address": "address", "address-line1": "address", "address-level2": "city", "address-level1": "state",
        "postal-code": "postcode", "country-name": "country", "given-name": "first name", "family-name": "last name",
        "transaction-amount": "amount", "transaction-currency": "currency",
    }
)  # fmt: skip
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_URL = re.compile(r"https?://\S+", re.IGNORECASE)
_PHONE = re.compile(r"\+?[\d\s()/.-]{5,}")


@dataclass(frozen=True, slots=True)
class Pair:
    """A column and the field it fills; `score` from 0 to 1, `why` in a few words for a person."""

    column: str
    field: FormField
    score: float
    why: str


@dataclass(frozen=True, slots=True)
class Ambiguity:
    """Columns and fields that fit each other equally well: a person must say which."""

    columns: tuple[str, ...]
    fields: tuple[FormField, ...]


@dataclass(frozen=True, slots=True)
class Matching:
    """What goes where, and what is left open."""

    pairs: tuple[Pair, ...]
    unmatched_columns: tuple[str, ...]
    unfilled_required: tuple[FormField, ...]
    ambiguities: tuple[Ambiguity, ...]

    def problems(self) -> tuple[str, ...]:
        """One sentence for each thing left open, with the fix; empty when every column and required field is paired."""
        unclear = {column for ambiguity in self.ambiguities for column in ambiguity.columns}
        return (
            *(_unclear(ambiguity) for ambiguity in self.ambiguities),
            *(_unplaced(column) for column in self.unmatched_columns if column not in unclear),
            *(f"the form requires {_label(field)!r} and no column fits it" for field in self.unfilled_required),
        )


def match_fields(
    columns: Sequence[str],
    sample_rows: Sequence[Sequence[str]],
    fields: Sequence[FormField],
    *,
    explicit: Mapping[str, str] = MappingProxyType({}),
) -> Matching:
    """Pair columns with fields by label, name attribute, autocomplete token, synonyms, spelling and kind of values.

    `explicit` (column to label) is obeyed first; InvalidArgument when it names a column or label that is not there.
    """
    usable = [field for field in fields if not field.disabled and field.type not in _NOT_FILLED]
    named = _explicit_pairs(columns, usable, explicit)
    samples = {column: [row[index] for row in sample_rows] for index, column in enumerate(columns)}
    open_columns = [column for column in columns if column not in {pair.column for pair in named}]
    taken = {id(pair.field) for pair in named}
    open_fields = [field for field in usable if id(field) not in taken]
    scored = [
        Pair(column, field, found.score, found.why)
        for column in open_columns
        for field in open_fields
        if (found := _fit(column, samples[column], field)).score >= LIKELY
    ]
    pairs, ambiguities = _surest_first(scored)
    pairs = [*named, *pairs]
    paired = {pair.column for pair in pairs}
    filled = {id(pair.field) for pair in pairs}
    return Matching(
        tuple(sorted(pairs, key=lambda pair: columns.index(pair.column))),
        tuple(column for column in columns if column not in paired),
        tuple(f for f in usable if f.required and id(f) not in filled and not f.value),
        tuple(ambiguities),
    )


def parse_mapping(text: str, *, field: str = "columns") -> Mapping[str, str]:
    """Read "CSV column=Form label; other column=Other label". Raises InvalidArgument."""
    mapping: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        column, equals, label = (piece.strip() for piece in part.partition("="))
        if not (column and equals and label) or column in mapping:
            raise InvalidArgument(Violation(field, f'{part!r} must be "column=form label", each column once'))
        mapping[column] = label
    return mapping


def header_matches(label: str, header: str) -> bool:
    """Whether a list's heading may show what the mission calls `label`."""
    return likeness(label, header).score >= LIKELY


def match_header(label: str, headers: Sequence[str]) -> int | None:
    """The one heading that shows `label`; None when none does or two do equally well."""
    scores = [likeness(label, header).score for header in headers]
    best = max(scores, default=0.0)
    near = [index for index, score in enumerate(scores) if score > best - _MARGIN]
    return near[0] if best >= LIKELY and len(near) == 1 else None


def _explicit_pairs(columns: Sequence[str], fields: Sequence[FormField], explicit: Mapping[str, str]) -> list[Pair]:
    by_name = {fold(column): column for column in columns}
    pairs: list[Pair] = []
    for named, label in explicit.items():
        column = by_name.get(fold(named))
        if column is None:
            raise InvalidArgument(Violation("columns", f"the table has no column {named!r}; it has {_listed(columns)}"))
        found = [field for field in fields if max(likeness(label, name).score for name in _names(field)) == 1.0]
        if len(found) != 1:
            having = _listed([_label(field) for field in fields])
            count = "no field" if not found else f"{len(found)} fields"
            raise InvalidArgument(Violation("columns", f"the form has {count} {label!r}; its fields are {having}"))
        pairs.append(Pair(column, found[0], 1.0, "named by the mission"))
    return pairs


def _surest_first(candidates: Sequence[Pair]) -> tuple[list[Pair], list[Ambiguity]]:
    sure = [pair for pair in candidates if _stands_out(pair, candidates)]
    columns, fields = {pair.column for pair in sure}, {id(pair.field) for pair in sure}
    left = [pair for pair in candidates if pair.column not in columns and id(pair.field) not in fields]
    pairs, ambiguities = sure, list[Ambiguity]()
    for group in _groups(left):
        certain, unclear = _settle(group)
        pairs = [*pairs, *certain]
        ambiguities += [unclear] if unclear else []
    return pairs, ambiguities


def _stands_out(pair: Pair, candidates: Sequence[Pair]) -> bool:
    """A name that a person would call the same, and nothing else comes near."""
    rivals = [other for other in candidates if (other.column == pair.column) != (other.field is pair.field)]
    return pair.score >= SURE and all(rival.score <= pair.score - _MARGIN for rival in rivals)


def _groups(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """The pairs in groups that share neither a column nor a field with each other."""
    groups: list[list[Pair]] = []
    for pair in pairs:
        touched = [g for g in groups if any(o.column == pair.column or o.field is pair.field for o in g)]
        groups = [g for g in groups if not any(g is t for t in touched)]
        groups.append([pair, *(other for group in touched for other in group)])
    return groups


def _settle(group: Sequence[Pair]) -> tuple[list[Pair], Ambiguity | None]:
    """The heaviest assignment; a pair is certain when doing without it would cost more than the margin."""
    chosen = heaviest(group) if len(group) <= _MAX_GROUP else []
    total = sum(pair.score for pair in chosen)
    certain = [
        pair
        for pair in chosen
        if total - sum(other.score for other in heaviest([p for p in group if p is not pair])) > _MARGIN
    ]
    open_columns = {pair.column for pair in group} - {pair.column for pair in certain}
    taken = {id(pair.field) for pair in certain}
    unclear = [pair for pair in group if pair.column in open_columns and id(pair.field) not in taken]
    if not unclear:
        return certain, None
    fields = {id(pair.field): pair.field for pair in sorted(unclear, key=lambda pair: _label(pair.field))}
    return certain, Ambiguity(tuple(sorted({pair.column for pair in unclear})), tuple(fields.values()))


def heaviest(pairs: Sequence[Pair]) -> list[Pair]:
    """Of all ways to use each column and each field at most once, the one with the highest sum of scores.

    The Hungarian method with potentials (Kuhn 1955; Jonker and Volgenant 1987), cubic in the number of names.
    """
    columns = sorted({pair.column for pair in pairs})
    fields = sorted({id(pair.field): pair.field for pair in pairs}.values(), key=lambda f: (_label(f), f.ref))
    at = {(pair.column, id(pair.field)): pair for pair in pairs}
    grid = [[at.get((column, id(field))) for field in fields] + [None] * len(columns) for column in columns]
    costs = [[-pair.score if pair else 0.0 for pair in row] for row in grid]
    return [pair for row, chosen in zip(grid, _cheapest(costs), strict=True) if (pair := row[chosen])]


def _cheapest(costs: Sequence[Sequence[float]]) -> list[int]:
    """For each row the column it is given; there are at least as many columns as rows."""
    width = len(costs[0]) if costs else 0
    row_of, row_cost, column_cost = [-1] * (width + 1), [0.0] * len(costs), [0.0] * (width + 1)
    for start in range(len(costs)):
        row_of[width] = start
        column, slack, previous, seen = width, [math.inf] * width, [width] * width, [False] * (width + 1)
        while row_of[column] >= 0:
            seen[column] = True
            row = row_of[column]
            for other in range(width):
                reduced = costs[row][other] - row_cost[row] - column_cost[other]
                if not seen[other] and reduced < slack[other]:
                    slack[other], previous[other] = reduced, column
            nearest = min((other for other in range(width) if not seen[other]), key=slack.__getitem__)
            step = slack[nearest]
            for other in range(width + 1):
                if seen[other]:
                    row_cost[row_of[other]] += step
                    column_cost[other] -= step
                elif other < width:
                    slack[other] -= step
            column = nearest
        while column != width:
            row_of[column], column = row_of[previous[column]], previous[column]
    given = {row: column for column, row in enumerate(row_of[:width]) if row >= 0}
    return [given[row] for row in range(len(costs))]


def _fit(column: str, samples: Sequence[str], field: FormField) -> Likeness:
    name = max(_weighed(column, field), key=lambda found: found.score)
    kind = _kind_agrees([sample for sample in samples if sample.strip()], field)
    if kind is False:
        # An exact label with values that do not fit is still the field: the read-back will say what is wrong.
        return name if name.score >= SURE else Likeness(0.0, "values of another kind")
    if kind and name.score < LIKELY and not field.label:
        return Likeness(_TYPE_ALONE, f"values fit {field.type}")
    if kind and name.score == 0.0:
        return Likeness(_TYPE_ALONE, f"values fit {field.type or 'its options'}")
    return Likeness(min(1.0, name.score + 0.03), f"{name.why}; values fit") if kind and 0 < name.score < 1 else name


def _weighed(column: str, field: FormField) -> list[Likeness]:
    found = [likeness(column, field.label)]
    if field.field:
        by_attribute = likeness(column, field.field)
        found.append(Likeness(by_attribute.score * 0.97, f"field name: {by_attribute.why}"))
    if token := field.autocomplete.split()[-1:]:
        by_token = likeness(column, _AUTOCOMPLETE.get(token[0], token[0]))
        found.append(Likeness(by_token.score * 0.96, f"autocomplete {token[0]}: {by_token.why}"))
    if field.hint:
        by_hint = likeness(column, field.hint)
        found.append(Likeness(by_hint.score * 0.8, f"hint: {by_hint.why}"))
    return found


def _kind_agrees(samples: Sequence[str], field: FormField) -> bool | None:
    """Whether the values are of the kind that the field takes; None when its kind says nothing about values."""
    if not samples:
        return None
    if field.options:
        return all(any(same_value(sample, option) for option in field.options) for sample in samples)
    match field.type:
        case "date" | "datetime-local":
            return all(dates(sample) for sample in samples)
        case "email":
            return all(_EMAIL.fullmatch(sample.strip()) for sample in samples)
        case "url":
            return all(_URL.fullmatch(sample.strip()) for sample in samples)
        case "tel":
            return all(_PHONE.fullmatch(sample.strip()) for sample in samples)
        case "number" | "range":
            return False if not all(money(sample) for sample in samples) else None
        case "checkbox":
            return False if any(truth(sample) is None for sample in samples) else None
        case _:
            return None


def _names(field: FormField) -> tuple[str, ...]:
    return field.label, field.field


def _label(field: FormField) -> str:
    return " ".join(field.label.split()).rstrip(":* ") or field.field or field.ref


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _unclear(ambiguity: Ambiguity) -> str:
    columns, labels = _listed(ambiguity.columns), [_label(field) for field in ambiguity.fields]
    return f'{columns} and {_listed(labels)} fit equally well: say columns="{ambiguity.columns[0]}={labels[0]}"'


def _unplaced(column: str) -> str:
    return f'the column {column!r} fits no field of the form: say columns="{column}=the field\'s label", or remove it'
