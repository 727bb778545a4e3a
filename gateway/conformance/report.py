"""A trial as a file: JSON for programs, one page of HTML for people."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from html import escape

from gateway.conformance.verdicts import Report, Result

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.35rem .6rem;border-bottom:1px solid #ddd;
vertical-align:top}.PASS{color:#0a6b2d}.FAIL{color:#b00020;font-weight:600}.SKIP{color:#7a5b00}
pre{font-size:12px;white-space:pre-wrap;overflow-wrap:anywhere;background:#f6f6f6;padding:.6rem}
@media(prefers-color-scheme:dark){body{background:#16181d;color:#e6e6e6}pre{background:#22252c}td,th{border-color:#333}
.PASS{color:#6fd08c}.FAIL{color:#ff8a9a}.SKIP{color:#e0b84d}}
"""


def result_json(result: Result) -> dict[str, object]:
    """A check as programs read it, without its evidence."""
    return {
        "name": result.name,
        "verdict": str(result.verdict),
        "required": result.required,
        "rule": result.rule,
        "reason": result.reason,
        "seconds": result.seconds,
    }


def with_evidence(result: Result) -> dict[str, object]:
    """The same with what was seen."""
    return result_json(result) | {"evidence": [{"at": line.at, "text": line.text} for line in result.evidence]}


def as_json(report: Report) -> str:
    """Everything."""
    results = [with_evidence(each) for each in report.results]
    whole = {
        "worker": report.worker,
        "startedMs": report.started_ms,
        "conforms": report.conforms,
        "checks": results,
        "workerLog": report.worker_log,
    }
    return json.dumps(whole, ensure_ascii=False, indent=2) + "\n"


def as_html(report: Report) -> str:
    """Everything, on a page that needs nothing else."""
    when = datetime.fromtimestamp(report.started_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    verdict = "conforms" if report.conforms else "does not conform" if report.failed else "was not tried in everything"
    rows = "".join(map(_row, report.results))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Worker conformance: {escape(verdict)}</title><style>{_STYLE}</style>"
        f"<h1>{escape(report.worker)} {escape(verdict)}</h1><p>{when}</p>"
        f"<table><tr><th>check<th>verdict<th>rule and what was seen</tr>{rows}</table>"
        f"<h2>What the worker printed</h2><pre>{escape(report.worker_log) or 'nothing'}</pre></html>\n"
    )


def _row(result: Result) -> str:
    lines = "\n".join(f"{line.at:9.3f}  {line.text}" for line in result.evidence)
    advised = "" if result.required else " (advised)"
    reason = f"<p class={result.verdict}>{escape(result.reason)}</p>" if result.reason else ""
    return (
        f"<tr><td>{escape(result.name)}{advised}<td class={result.verdict}>{result.verdict}"
        f"<td>{escape(result.rule)}{reason}<details><summary>{len(result.evidence)} frames and events</summary>"
        f"<pre>{escape(lines)}</pre></details></tr>"
    )
