"""What became of every record of a run, as a table for people (HTML, for print too) and for programs (CSV)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from control.core.finish import counted, records, unproven
from control.core.moments import ms_of
from control.core.run import RunFold
from skyagent.execution.v1 import action_pb2 as act
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan
from skyagent.run.v1 import state_pb2 as st

_WORDS = {
    ev.NODE_STATE_SUCCEEDED: "entered",
    ev.NODE_STATE_FAILED: "failed",
    ev.NODE_STATE_DENIED: "denied",
    ev.NODE_STATE_SKIPPED: "not tried",
    ev.NODE_STATE_UNCERTAIN: "uncertain",
}
_SENT = "sent, unverified"
_NOBODY_LOOKED = "the application cannot be asked: nobody has seen it"
COLUMNS = (
    "record",
    "outcome",
    "values",
    "attempts",
    "interrupted",
    "false_success",
    "approved_by",
    "seen",
    "evidence",
    "seconds",
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One record and what became of it. `seconds` run from its first intent to its last result."""

    record: str
    outcome: str
    values: str
    attempts: int
    interrupted: int
    false_success: int
    approved_by: str
    seen: str
    evidence: tuple[str, ...]
    seconds: float

    def cells(self) -> tuple[str, ...]:
        """The same as texts, in the order of COLUMNS."""
        numbers = (str(self.attempts), str(self.interrupted), str(self.false_success))
        texts = (self.approved_by, self.seen, " ".join(self.evidence), f"{self.seconds:.1f}")
        return (self.record, self.outcome, self.values, *numbers, *texts)


def outcomes(folded: RunFold) -> list[Outcome]:
    """One row for each record, in the order of the input."""
    return [_outcome(folded, group) for group in records(folded)]


def as_csv(rows: list[Outcome]) -> bytes:
    """The table as UTF-8 CSV with a header. Cells that a spreadsheet would take for a formula are quoted with '."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows([[_harmless(cell) for cell in row.cells()] for row in rows])
    return text.getvalue().encode()


def as_html(folded: RunFold, rows: list[Outcome]) -> bytes:
    """The table as one self-contained page."""
    state = folded.state
    entered = sum(row.outcome == "entered" for row in rows)
    body = "\n".join(_html_row(row) for row in rows)
    sent = sum(row.outcome == _SENT for row in rows)
    unseen = f" · {sent} sent, unverified: the application cannot be asked" if sent else ""
    counts = state.counts
    facts = (
        f"{entered} of {counted(len(rows), 'record')} entered and seen in the application{unseen} ·"
        f" {counted(counts.attempts, 'attempt')} ·"
        f" {counts.lost_attempts} interrupted · {counted(counts.false_successes, 'false success')} caught ·"
        f" {counted(counts.approvals, 'approval')} · {counted(counts.takeovers, 'takeover')} ·"
        f" {counted(counts.model_calls, 'model call')}"
    )
    page = _PAGE.format(goal=escape(state.spec.goal), run_id=escape(state.run_id), facts=escape(facts), body=body)
    return page.encode()


def _outcome(folded: RunFold, group: st.NodeRecord) -> Outcome:
    steps = [step for step in folded.children(group.node.node_id) if not step.node.step.probe_of]
    tried = [attempt for step in steps for attempt in step.attempts if attempt.intended_seq]
    last = steps[-1] if steps else None
    findings = list(last.attempts[-1].findings) if last and last.attempts else []
    shown = [finding for finding in findings if finding.postcondition.HasField("listed")]
    sent = group.state == ev.NODE_STATE_SUCCEEDED and unproven(folded, group)
    return Outcome(
        record=group.node.group.record_key,
        outcome=_SENT if sent else _WORDS.get(group.state, "not done"),
        values=_values(last) if last else "",
        attempts=len(tried),
        interrupted=sum(attempt.status == act.OUTCOME_STATUS_LOST for attempt in tried),
        false_success=sum(a.holds == plan.HOLDS_NO and a.status == act.OUTCOME_STATUS_OK for a in tried),
        approved_by=", ".join(sorted({name for step in steps for name in _approvers(folded, step)})),
        seen=_seen_of_sent(last) if sent else shown[0].detail if shown else group.reason,
        evidence=tuple(digest for finding in shown for digest in finding.evidence)[:1],
        seconds=_seconds(tried),
    )


def _seen_of_sent(last: st.NodeRecord | None) -> str:
    """What a person said of it, where one was asked."""
    return last.reason if last and last.reason else _NOBODY_LOOKED


def _values(step: st.NodeRecord) -> str:
    fields = step.node.step.action.browser.click.expect
    return "; ".join(f"{field.label}: {field.value}" for field in fields)


def _approvers(folded: RunFold, step: st.NodeRecord) -> Iterator[str]:
    used = {attempt.approval_id for attempt in step.attempts if attempt.approval_id}
    return (approval.actor for approval in folded.state.approvals if approval.approval_id in used)


def _seconds(tried: list[st.AttemptRecord]) -> float:
    ended = [ms_of(attempt.finish_time) for attempt in tried if attempt.finished_seq]
    return (max(ended) - ms_of(tried[0].intend_time)) / 1000 if ended else 0.0


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t") else cell


def _html_row(row: Outcome) -> str:
    notes = [
        f"interrupted {row.interrupted}x" if row.interrupted else "",
        f"false success caught {row.false_success}x" if row.false_success else "",
        f"approved by {row.approved_by}" if row.approved_by else "",
    ]
    cells = (row.record, row.outcome, row.values, str(row.attempts), ", ".join(filter(None, notes)), row.seen)
    html = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr class="{escape(row.outcome.replace(",", "").replace(" ", "-"))}">{html}<td>{row.seconds:.1f}</td></tr>'


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Outcome of {run_id}</title>
<style>
@page {{ size: A4 landscape; margin: 10mm }}
body {{ font: 13px/1.45 system-ui, "Liberation Sans", sans-serif; color: #16202c }}
body {{ margin: 32px auto; max-width: 1180px }}
h1 {{ font-size: 20px; margin: 0 0 4px }} p {{ color: #526173; margin: 0 0 18px }}
table {{ border-collapse: collapse; width: 100% }} tr {{ break-inside: avoid }}
thead {{ display: table-header-group }}
th, td {{ text-align: left; vertical-align: top; padding: 7px 10px; border-bottom: 1px solid #dde3ea }}
th {{ font-weight: 600; color: #526173 }} td:first-child {{ font-weight: 600; white-space: nowrap }}
.entered td:nth-child(2) {{ color: #12733c }} .failed td:nth-child(2), .denied td:nth-child(2) {{ color: #b3261e }}
.uncertain td:nth-child(2), .sent-unverified td:nth-child(2) {{ color: #8a5a00 }}
td:last-child {{ text-align: right; font-variant-numeric: tabular-nums }}
@media print {{
  body {{ font-size: 10px; line-height: 1.3; margin: 0; max-width: none }} th, td {{ padding: 3px 8px }}
  h1 {{ font-size: 15px }} p {{ margin-bottom: 8px }}
}}
</style></head><body>
<h1>{goal}</h1><p>Run {run_id} · {facts}</p>
<table><thead><tr><th>Record</th><th>Outcome</th><th>Values</th><th>Attempts</th><th>On the way</th>
<th>What the application shows</th><th>Seconds</th></tr></thead>
<tbody>
{body}
</tbody></table></body></html>
"""
