"""A run as a tree for a terminal."""

from __future__ import annotations

from rich.console import Console

from control.core.run import RunFold
from gateway.cli.tree import run_view
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan
from skyagent.run.v1 import state_pb2 as st

WIDTH = 100


def shown(state: st.RunState, *, link_lost: bool = False) -> str:
    console = Console(width=WIDTH, record=True, file=None, quiet=True)
    with console.capture() as captured:
        console.quiet = False
        console.print(run_view(RunFold(state), link_lost=link_lost))
    return captured.get()


def group(node_id: str, title: str, state: ev.NodeState.ValueType, *, parent: str = "", key: str = "") -> st.NodeRecord:
    node = plan.PlanNode(node_id=node_id, parent_id=parent, title=title, group=plan.Group(record_key=key))
    return st.NodeRecord(node=node, state=state)


def step(node_id: str, title: str, state: ev.NodeState.ValueType, parent: str, reason: str = "") -> st.NodeRecord:
    node = plan.PlanNode(node_id=node_id, parent_id=parent, title=title, step=plan.Step())
    return st.NodeRecord(node=node, state=state, reason=reason)


def records(done: int, of: int) -> st.RunState:
    state = st.RunState(run_id="RUN", phase=ev.RUN_PHASE_RUNNING)
    state.spec.goal = "enter the invoices"
    state.nodes.append(group("P", "Records", ev.NODE_STATE_RUNNING))
    for number in range(of):
        how = (
            ev.NODE_STATE_SUCCEEDED
            if number < done
            else ev.NODE_STATE_RUNNING
            if number == done
            else ev.NODE_STATE_PENDING
        )
        state.nodes.append(group(f"R{number}", f"Record INV-{number}", how, parent="P", key=f"INV-{number}"))
    state.nodes.append(step("S", "Save the record", ev.NODE_STATE_RUNNING, f"R{done}"))
    return state


def test_the_goal_and_the_phase_come_first() -> None:
    assert shown(records(3, 12)).splitlines()[0].startswith("running  enter the invoices  RUN")


def test_records_are_a_bar_and_what_is_under_way_is_named() -> None:
    text = shown(records(3, 12))
    assert "3 of 12 records" in text
    assert "▸ Record INV-3" in text
    assert "▸ Save the record" in text
    assert "8 to come" in text


def test_what_is_done_takes_no_lines() -> None:
    assert "INV-0" not in shown(records(3, 12))


def test_a_thousand_records_fit_a_screen() -> None:
    assert len(shown(records(500, 1000)).splitlines()) < 20


def test_a_failure_is_told_with_its_reason() -> None:
    state = records(3, 4)
    state.nodes.append(step("X", "Open the list", ev.NODE_STATE_FAILED, "P", "the page answered 500"))
    assert "✗ Open the list  the page answered 500" in shown(state)


def test_a_question_is_shown() -> None:
    state = records(3, 12)
    state.approvals.append(st.ApprovalRecord(summary="Submit 12,000.00 to Acme", state=ev.APPROVAL_STATE_PENDING))
    assert "⏸ Submit 12,000.00 to Acme" in shown(state)


def test_a_lost_connection_is_told_and_nothing_disappears() -> None:
    text = shown(records(3, 12), link_lost=True)
    assert "connecting again" in text
    assert "3 of 12 records" in text


def test_text_from_a_page_is_no_markup() -> None:
    state = records(0, 1)
    state.spec.goal = "[bold]not bold[/bold] [link=http://evil]x[/link]"
    assert "[bold]not bold[/bold]" in shown(state)


def test_text_from_a_page_cannot_move_the_cursor() -> None:
    state = records(0, 1)
    state.spec.goal = "innocent\x1b[2J\x1b]0;title\x07\nsecond line"
    assert not [character for character in shown(state) if ord(character) < 32 and character != "\n"]


def test_the_end_says_what_was_done_and_survived() -> None:
    state = records(12, 12)
    state.phase, state.summary = ev.RUN_PHASE_SUCCEEDED, "12 records entered and seen in the application"
    state.counts.lost_attempts, state.counts.false_successes = 2, 1
    text = shown(state)
    assert "12 records entered and seen" in text
    assert "2 lost and recovered, 1 false success caught" in text
