from __future__ import annotations

import csv
import io

import pytest

from control.core.outcome_table import COLUMNS, Outcome, as_csv, as_html, outcomes
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.policy.v1 import decision_pb2 as pol
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st
from tests.control.core.simulation import Application, Simulation, records_plan


def _simulated(*keys: str, saves: list[str] | None = None, ask: str = "") -> Simulation:
    def policy(record: st.NodeRecord) -> pol.Verdict.ValueType:
        return pol.VERDICT_ASK if ask and record.node.title == f"save {ask}" else pol.VERDICT_ALLOW

    nodes = records_plan(*keys)
    for node in nodes:
        if node.title.startswith("save"):
            node.step.action.browser.click.expect.add(label="Total", value="5")
            node.step.action.browser.click.expect.add(label="Vendor", value="Acme")
    simulation = Simulation(nodes, Application(saves=saves or []), policy)
    simulation.run()
    return simulation


def test_a_record_that_is_in_is_told_with_what_was_seen_of_it() -> None:
    (row,) = outcomes(_simulated("A").folded)
    assert (row.record, row.outcome, row.values) == ("A", "entered", "Total: 5; Vendor: Acme")
    assert (row.attempts, row.interrupted, row.false_success, row.approved_by) == (3, 0, 0, "")
    assert "shows 'A' once, as entered" in row.seen
    assert row.seconds > 0


def test_what_went_wrong_on_the_way_is_counted() -> None:
    (row,) = outcomes(_simulated("A", saves=["false", "lost after"]).folded)
    assert (row.outcome, row.attempts, row.interrupted, row.false_success) == ("entered", 6, 1, 1)


def test_who_approved_is_named_once() -> None:
    simulation = _simulated("A", ask="A")
    simulation.answer(ev.APPROVAL_STATE_GRANTED)
    simulation.run()
    (row,) = outcomes(simulation.folded)
    assert (row.outcome, row.approved_by) == ("entered", "ann")


def test_a_denied_record_shows_why_and_what_comes_after_it_is_entered() -> None:
    simulation = _simulated("A", "B", ask="A")
    simulation.answer(ev.APPROVAL_STATE_DENIED)
    simulation.run()
    denied, entered = outcomes(simulation.folded)
    assert (denied.outcome, denied.seen, denied.approved_by) == ("denied", "denied by ann", "")
    assert entered.outcome == "entered"


def test_a_record_that_nobody_has_begun_is_not_done() -> None:
    simulation = Simulation(records_plan("A"), Application())
    simulation.append(ev.EventBody(plan_extended=ev.PlanExtended(nodes=simulation.nodes)))
    (row,) = outcomes(simulation.folded)
    assert (row.outcome, row.attempts, row.seconds, row.evidence) == ("not done", 0, 0.0, ())


def test_an_uncertain_record_says_so() -> None:
    simulation = _simulated("A")
    simulation.step("save A").state = ev.NODE_STATE_UNCERTAIN
    simulation.folded.node("A").state = ev.NODE_STATE_UNCERTAIN
    assert outcomes(simulation.folded)[0].outcome == "uncertain"


@pytest.mark.parametrize(
    ("state", "word"),
    [
        (ev.NODE_STATE_SUCCEEDED, "entered"),
        (ev.NODE_STATE_FAILED, "failed"),
        (ev.NODE_STATE_DENIED, "denied"),
        (ev.NODE_STATE_SKIPPED, "not tried"),
        (ev.NODE_STATE_PENDING, "not done"),
    ],
)
def test_every_state_has_its_word(state: ev.NodeState.ValueType, word: str) -> None:
    simulation = _simulated("A")
    simulation.folded.node("A").state = state
    (row,) = outcomes(simulation.folded)
    assert row.outcome == word
    assert f'<tr class="{word.replace(" ", "-")}">' in as_html(simulation.folded, [row]).decode()


def test_the_whole_table_in_its_order() -> None:
    assert ",".join(COLUMNS) == (
        "record,outcome,values,attempts,interrupted,false_success,approved_by,seen,evidence,seconds"
    )
    row = Outcome("A", "entered", "v", 3, 1, 2, "ann", "once", ("b3:1", "b3:2"), 1.25)
    assert row.cells() == ("A", "entered", "v", "3", "1", "2", "ann", "once", "b3:1 b3:2", "1.2")


def test_seconds_run_from_the_first_intent_to_the_last_result() -> None:
    simulation = _simulated("A")
    record = simulation.step("open A").attempts[0], simulation.step("save A").attempts[0]
    begin, end = record[0].intend_time.ToMilliseconds(), record[1].finish_time.ToMilliseconds()
    assert outcomes(simulation.folded)[0].seconds == (end - begin) / 1000


def test_the_table_is_a_csv_that_every_program_reads_and_no_spreadsheet_runs() -> None:
    simulation = _simulated("=1+1", "B")
    rows = list(csv.reader(io.StringIO(as_csv(outcomes(simulation.folded)).decode())))
    assert tuple(rows[0]) == COLUMNS
    assert [row[0] for row in rows[1:]] == ["'=1+1", "B"]
    assert rows[2][:6] == ["B", "entered", "Total: 5; Vendor: Acme", "3", "0", "0"]


@pytest.mark.parametrize("key", ["=1", "+1", "-1", "@A", "\t1"])
def test_no_cell_of_the_table_is_a_formula_to_a_spreadsheet(key: str) -> None:
    [_, row] = csv.reader(io.StringIO(as_csv(outcomes(_simulated(key).folded)).decode()))
    assert row[0] == f"'{key}"


def test_the_page_tells_the_same_and_is_safe_to_open() -> None:
    simulation = _simulated("<b>", saves=["false", "lost after"])
    simulation.folded.state.spec.goal = "Enter <all>"
    page = as_html(simulation.folded, outcomes(simulation.folded)).decode()
    assert "<h1>Enter &lt;all&gt;</h1>" in page
    assert "<td>&lt;b&gt;</td><td>entered</td><td>Total: 5; Vendor: Acme</td><td>6</td>" in page
    assert "<td>interrupted 1x, false success caught 1x</td>" in page
    assert "1 of 1 record entered and seen in the application" in page
    assert "1 interrupted · 1 false success caught · 0 approvals · 0 takeovers · 0 model calls" in page
    assert '<tr class="entered">' in page


def test_evidence_is_the_first_picture_of_what_the_application_shows() -> None:
    simulation = _simulated("A")
    finding = simulation.step("save A").attempts[0].findings[0]
    finding.evidence.extend(["b3:1", "b3:2"])
    assert outcomes(simulation.folded)[0].evidence == ("b3:1",)


def _sent(*, lost: bool = False) -> Simulation:
    """Posts of which no page shows anything afterwards; of the second one the answer may get lost."""
    nodes = records_plan("A", "B")
    for node in nodes:
        if node.title.startswith("save"):
            node.step.action.effect_class = eff.EFFECT_CLASS_ONCE
            for claim in [claim for claim in node.step.postconditions if claim.HasField("listed")]:
                node.step.postconditions.remove(claim)
    simulation = Simulation(nodes, Application(saves=["saved", "lost after" if lost else "saved"]))
    simulation.run()
    return simulation


def test_what_the_application_cannot_be_asked_about_was_sent_and_is_never_called_entered() -> None:
    simulation = _sent()
    rows = outcomes(simulation.folded)
    assert [(row.outcome, row.seen) for row in rows] == [
        ("sent, unverified", "the application cannot be asked: nobody has seen it")
    ] * 2
    assert (
        "0 of 2 records entered and seen in the application · 2 sent, unverified"
        in as_html(simulation.folded, rows).decode()
    )
    state = simulation.folded.state
    assert (state.phase, state.reason) == (ev.RUN_PHASE_SUCCEEDED, "UNVERIFIED")
    assert state.summary == "2 records sent, none verified: the application cannot be asked"


def test_one_that_got_lost_unasked_is_uncertain() -> None:
    assert [row.outcome for row in outcomes(_sent(lost=True).folded)] == ["sent, unverified", "uncertain"]
