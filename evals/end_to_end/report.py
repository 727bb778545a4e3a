"""The proof as a page that can be opened later: outcome, kills, saves and where the evidence lies."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from evals.end_to_end.outcome import Evidence, result_of, shortcomings
from evals.end_to_end.scene import MOMENTS, Row
from evals.sites.fault_proxy import SeenSave

TEMPLATE = "report.html.j2"


@dataclass(frozen=True, slots=True)
class Material:
    """What the page shows beside the evidence. Files are linked relative to the report."""

    rows: Mapping[str, Row]
    saves: Sequence[SeenSave]
    csv: Path
    database: Path
    artifacts: Sequence[Path]
    page: str
    seed: int


@dataclass(frozen=True, slots=True)
class Line:
    """One record in the table of the database's contents."""

    number: str
    supplier: str
    amount: str
    rows: int
    saves: int
    verdict: str
    good: bool
    marks: str


def write_report(evidence: Evidence, material: Material) -> None:
    """Write the page to `evidence.report`."""
    folder = evidence.report.parent
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template(TEMPLATE).render(
        result=(result := result_of(evidence)),
        figures=[(name.replace("_", " "), value) for name, value in asdict(result).items() if name != "report"],
        shortcomings=shortcomings(evidence),
        lines=lines_of(evidence, material.rows, material.saves),
        kills=evidence.kills,
        moments=MOMENTS,
        saves=material.saves,
        rows=_link(material.csv, folder),
        database=_link(material.database, folder),
        artifacts=[_link(artifact, folder) for artifact in material.artifacts],
        page=material.page,
        seed=material.seed,
    )
    evidence.report.write_text(page, encoding="utf-8")


def lines_of(evidence: Evidence, rows: Mapping[str, Row], saves: Sequence[SeenSave]) -> list[Line]:
    """One line for each record, in the order of the file."""
    return [_line(number, row, evidence, saves) for number, row in rows.items()]


def _line(number: str, row: Row, evidence: Evidence, saves: Sequence[SeenSave]) -> Line:
    judgement = evidence.judgement
    is_wrong = any(flaw.number == number for flaw in judgement.wrong)
    is_denied = number in evidence.denied
    stored = 0 if number in judgement.missing else 1 + judgement.duplicates.get(number, 0)
    return Line(
        number=number,
        supplier=row.invoice.supplier,
        amount=f"{row.invoice.amount:,} {row.invoice.currency}",
        rows=stored,
        saves=sum(seen.save.fields.get("number") == number for seen in saves),
        verdict=_verdict(stored, is_wrong=is_wrong, is_denied=is_denied),
        good=not is_wrong and stored == (0 if is_denied else 1),
        marks=" · ".join(row.marks),
    )


def _verdict(stored: int, *, is_wrong: bool, is_denied: bool) -> str:
    if stored == 0:
        return "absent, as a person decided" if is_denied else "missing"
    if stored > 1:
        return f"{stored} times"
    return "altered" if is_wrong else "once, every field right"


def _link(target: Path, folder: Path) -> str:
    return os.path.relpath(target, folder)
