"""A run as a tree for a terminal: phases, records, the step in hand, and what went wrong. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from control.core.budget import amount, figure, limit
from control.core.run import RunFold
from control.core.summary import current_step
from gateway.cli.outcome import ended, pending
from gateway.cli.output import plain
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st

MARKS = {
    ev.NODE_STATE_PENDING: ("·", "dim"),
    ev.NODE_STATE_RUNNING: ("▸", "cyan"),
    ev.NODE_STATE_CHECKING: ("?", "cyan"),
    ev.NODE_STATE_WAITING: ("⏸", "yellow"),
    ev.NODE_STATE_UNCERTAIN: ("‽", "magenta"),
    ev.NODE_STATE_SUCCEEDED: ("✓", "green"),
    ev.NODE_STATE_FAILED: ("✗", "red"),
    ev.NODE_STATE_SKIPPED: ("−", "dim"),
    ev.NODE_STATE_DENIED: ("⊘", "red"),
}
PHASE_COLOURS = {
    ev.RUN_PHASE_SUCCEEDED: "green",
    ev.RUN_PHASE_FAILED: "red",
    ev.RUN_PHASE_CANCELLED: "red",
    ev.RUN_PHASE_WAITING: "yellow",
    ev.RUN_PHASE_PAUSED: "yellow",
}
# A tree taller than a screen cannot be redrawn in place: what is done is folded into one line.
MAX_RECORDS = 8
BAR_WIDTH = 32
GOAL_WIDTH = 100


def run_view(folded: RunFold, *, link_lost: bool = False) -> RenderableType:
    """All that a person needs to see of a run, in less than a screen."""
    parts: list[RenderableType] = [_header(folded.state)]
    records = [node for node in folded.state.nodes if node.node.group.record_key]
    if records:
        parts.append(_progress(records))
    parts.append(_tree(folded))
    parts.extend(plain(f"  ⏸ {approval.summary}", "yellow") for approval in pending(folded.state))
    if folded.state.blocked_detail and not ended(folded.state):
        parts.append(plain(f"  {folded.state.blocked_detail}", "yellow"))
    if link_lost:
        parts.append(Text("  the connection is lost; the run goes on, connecting again …", "yellow"))
    parts.append(_footer(folded))
    return Group(*parts)


def phase_word(phase: ev.RunPhase.ValueType) -> str:
    """RUN_PHASE_SUCCEEDED as "succeeded"."""
    return ev.RunPhase.Name(phase).removeprefix("RUN_PHASE_").lower()


def _header(state: st.RunState) -> Text:
    colour = PHASE_COLOURS.get(state.phase, "cyan")
    text = Text.assemble(
        (phase_word(state.phase), f"bold {colour}"), "  ", plain((state.goal or state.spec.goal)[:GOAL_WIDTH], "bold")
    )
    return text.append(f"  {state.run_id}{'  dry run' if state.spec.dry_run else ''}", "dim")


def _progress(records: list[st.NodeRecord]) -> Table:
    done = sum(record.state == ev.NODE_STATE_SUCCEEDED for record in records)
    row = Table.grid(padding=(0, 1))
    row.add_row(
        " ", ProgressBar(total=len(records), completed=done, width=BAR_WIDTH), f"{done} of {len(records)} records"
    )
    return row


def _tree(folded: RunFold) -> Tree:
    tree = Tree("", hide_root=True, guide_style="dim")
    for phase in folded.children(""):
        _grow(tree.add(_label(phase)), folded, phase)
    return tree


def _grow(branch: Tree, folded: RunFold, phase: st.NodeRecord) -> None:
    """What is under way or went wrong; the rest as a count."""
    children = [child for child in folded.children(phase.node.node_id) if not child.node.step.probe_of]
    quiet = (ev.NODE_STATE_SUCCEEDED, ev.NODE_STATE_PENDING)
    told = [child for child in children if child.state not in quiet]
    for child in told[-MAX_RECORDS:]:
        leaf = branch.add(_label(child))
        for step in _active_steps(folded, child):
            leaf.add(_label(step))
    waiting = sum(child.state == ev.NODE_STATE_PENDING for child in children)
    if waiting and (told or phase.state == ev.NODE_STATE_RUNNING):
        branch.add(Text(f"· {waiting} to come", "dim"))


def _active_steps(folded: RunFold, record: st.NodeRecord) -> list[st.NodeRecord]:
    active = (ev.NODE_STATE_RUNNING, ev.NODE_STATE_CHECKING, ev.NODE_STATE_WAITING, ev.NODE_STATE_UNCERTAIN)
    steps = [step for step in folded.descendants(record.node.node_id) if step.node.HasField("step")]
    return [step for step in steps if step.state in active and not step.node.step.probe_of]


def _label(record: st.NodeRecord) -> Text:
    mark, colour = MARKS.get(record.state, ("·", "dim"))
    text = Text.assemble((mark, colour), " ", plain(record.node.title))
    if record.attempts and len(record.attempts) > 1:
        text.append(f"  attempt {len(record.attempts)}", "dim")
    if record.restarts:
        text.append(f"  started again {record.restarts}×", "dim")
    if record.reason and record.state in (ev.NODE_STATE_FAILED, ev.NODE_STATE_DENIED, ev.NODE_STATE_UNCERTAIN):
        text.append_text(plain(f"  {record.reason}", colour))
    return text


def _footer(folded: RunFold) -> Text:
    text = plain(f"  {folded.state.summary}" if ended(folded.state) else f"  {current_step(folded)}", "default")
    return text.append(f"\n  {', '.join([*_figures(folded.state.counts), *_meters(folded.state)])}", "dim")


def _meters(state: st.RunState) -> Iterator[str]:
    """What is used of what may be used, where that is limited."""
    for found in state.meters:
        bound = limit(state, found.kind)
        if bound is not None:
            yield f"{figure(found.kind, found.spent + found.reserved)} of {amount(found.kind, bound)}"


def _figures(counts: st.RunCounts) -> Iterator[str]:
    for number, one, many in (
        (counts.attempts, "attempt", "attempts"),
        (counts.lost_attempts, "lost and recovered", "lost and recovered"),
        (counts.takeovers, "takeover", "takeovers"),
        (counts.false_successes, "false success caught", "false successes caught"),
        (counts.uncertain, "uncertain", "uncertain"),
        (counts.approvals, "question asked", "questions asked"),
        (counts.model_calls, "model call", "model calls"),
    ):
        if number:
            yield f"{number} {one if number == 1 else many}"
