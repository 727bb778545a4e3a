"""Plans from templates: which phase comes next, and the steps that it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import count

import pytest

from control.core.phases import print_table
from control.core.planner import Extension, Known, events_of, extend
from control.core.run import RunFold
from control.core.tables import parse_table
from infra.errors import Internal, Precondition
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import browser_pb2 as br
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.mission.v1 import mission_pb2 as mission
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan
from tests.control.core.simulation import ok

DATA_ENTRY = ("sign_in", "inspect_form", "records", "outcome_table")
SITE = {"site": "http://app/", "form": "/add/"}
ROWS = b"Number,Total\nA 1,5\nB/2,\n"


def _field(name: str, kind: str = "text", form: int = 0) -> br.FormField:
    return br.FormField(label=name.title(), field=name, role="textbox", type=kind, form_index=form)


FORM = [_field("number"), _field("total")]


class Mission:
    """A run whose plan is extended and whose steps end as told."""

    def __init__(self, inputs: Mapping[str, str], rows: bytes = ROWS, *, dry_run: bool = False) -> None:
        self.folded = RunFold()
        self.inputs, self.table = inputs, parse_table(rows) if rows else None
        self.outcomes: dict[int, act.Outcome] = {}
        self.numbers = count(1)
        spec = mission.MissionSpec(goal="g", dry_run=dry_run)
        self.tell(ev.EventBody(run_created=ev.RunCreated(spec=spec)))

    @property
    def known(self) -> Known:
        return Known(self.folded, self.inputs, self.table, self.outcomes, lambda: f"N{next(self.numbers)}")

    def extend(self, *phases: str) -> Extension:
        extension = extend(phases, self.known)
        nodes = ev.PlanExtended(nodes=extension.nodes, more=extension.more)
        self.tell(ev.EventBody(plan_extended=nodes))
        return extension

    def done(self, *fields: br.FormField) -> None:
        """The last planned step succeeds and shows these fields."""
        step_id = self.folded.state.nodes[-1].node.node_id
        self.tell(ev.EventBody(step_intended=ev.StepIntended(step_id=step_id, attempt=1)))
        outcome = ok(observation=br.BrowserObservation(form_fields=fields))
        self.tell(ev.EventBody(step_finished=ev.StepFinished(step_id=step_id, attempt=1, outcome=outcome)))
        self.outcomes[self.folded.state.seq] = outcome
        validated = ev.StepValidated(step_id=step_id, attempt=1, holds=plan.HOLDS_YES)
        self.tell(ev.EventBody(step_validated=validated))

    def tell(self, body: ev.EventBody) -> None:
        self.folded.apply(ev.RunEvent(run_id="R", seq=self.folded.state.seq + 1, body=body))


def _titles(extension: Extension) -> list[str]:
    return [node.title for node in extension.nodes]


def test_phases_follow_one_another_and_each_is_planned_once() -> None:
    run = Mission(SITE)
    first = run.extend(*DATA_ENTRY)
    assert (_titles(first), first.more) == (["Look at the form", "Open the form and read its fields"], True)
    assert first.reason == "the form tells which column goes where"
    run.done(*FORM)
    records = run.extend(*DATA_ENTRY)
    assert (records.nodes[0].title, records.more) == ("Enter 2 records", True)
    assert records.reason == "every record is one group, tried and checked on its own"
    table = run.extend(*DATA_ENTRY)
    assert (_titles(table), table.more) == (["Write the outcome table", "Write it as CSV and HTML"], False)
    assert table.reason == "what became of every record is written down"
    nothing = run.extend(*DATA_ENTRY)
    assert (nothing.nodes, nothing.more, nothing.reason) == ((), False, "everything is planned")


def test_every_id_is_new_and_every_parent_is_planned_before_its_children() -> None:
    run = Mission(SITE)
    run.extend(*DATA_ENTRY)
    run.done(*FORM)
    run.extend(*DATA_ENTRY)
    seen = [""]
    for node in run.folded.state.nodes:
        assert node.node.parent_id in seen
        assert node.node.node_id not in seen
        seen.append(node.node.node_id)


def test_a_record_is_opened_filled_and_saved_in_a_group_that_starts_again() -> None:
    run = Mission(SITE | {"list": "/list/?q={key}", "submit": "Book it"})
    run.extend("inspect_form")
    run.done(*FORM)
    nodes = run.extend("inspect_form", "records").nodes
    records, first, opened, filled, saved, second = nodes[:6]
    assert (records.group.on_failure, records.group.phase) == (plan.ON_FAILURE_CONTINUE, "records")
    assert (first.title, first.group.record_key, first.parent_id) == ("A 1", "A 1", records.node_id)
    assert (first.group.restart_from_first, first.group.on_failure) == (True, plan.ON_FAILURE_CONTINUE)
    assert second.group.record_key == "B/2"
    assert {node.parent_id for node in (opened, filled, saved)} == {first.node_id}

    assert opened.title == "Open an empty form"
    assert opened.step.action.effect_class == eff.EFFECT_CLASS_READ
    assert opened.step.action.browser.navigate.url == "http://app/add/"
    assert opened.step.action.browser.observe_after.form_fields
    assert opened.step.postconditions[0].http_status == plan.HttpStatus(method="GET", min=200, max=399)

    assert filled.title == "Fill in 2 fields and read them back"
    assert filled.step.action.effect_class == eff.EFFECT_CLASS_IDEMPOTENT
    fields = filled.step.action.browser.fill_form.fields
    assert [(field.label, field.value, field.target.locator.field) for field in fields] == [
        ("Number", "A 1", "number"),
        ("Total", "5", "total"),
    ]
    assert filled.step.postconditions[0].HasField("fields_read_back")

    click = saved.step.action.browser.click
    assert (saved.title, saved.step.action.effect_class) == ("Save the record", eff.EFFECT_CLASS_PROBEABLE)
    assert (click.target.locator.role, click.target.locator.name) == ("button", "Book it")
    assert click.expect_navigation
    assert list(click.expect) == list(fields)
    listed = saved.step.postconditions[1].listed
    assert (listed.url, listed.key, listed.count) == ("http://app/list/?q=A%201", "A 1", 1)
    assert list(listed.cells) == list(fields)
    assert saved.step.postconditions[0].http_status.method == "POST"
    assert saved.step.settle.seconds == 2
    assert saved.step.facts.amount_cents == 500


def test_an_empty_cell_is_left_out() -> None:
    run = Mission(SITE)
    run.extend("inspect_form")
    run.done(*FORM)
    nodes = run.extend("inspect_form", "records").nodes
    assert nodes[7].title == "Fill in 1 fields and read them back"


def test_without_a_list_page_a_record_is_sent_once_with_a_button_called_save() -> None:
    run = Mission(SITE)
    run.extend("inspect_form")
    run.done(*FORM)
    saved = run.extend("inspect_form", "records").nodes[4]
    assert saved.step.action.effect_class == eff.EFFECT_CLASS_ONCE
    assert saved.step.action.browser.click.target.locator.name == "Save"
    assert [claim.http_status.method for claim in saved.step.postconditions] == ["POST"]
    assert not saved.step.HasField("settle")


def test_records_are_told_apart_by_the_column_that_the_mission_names() -> None:
    run = Mission(SITE | {"key": "Total"}, b"Number,Total\nA,5\n")
    run.extend("inspect_form")
    run.done(*FORM)
    assert run.extend("inspect_form", "records").nodes[1].group.record_key == "5"


def test_a_field_without_a_name_is_found_by_role_and_label() -> None:
    run = Mission(SITE, b"Number\nA\n")
    run.extend("inspect_form")
    run.done(br.FormField(label="Number", role="textbox", type="text"))
    filled = run.extend("inspect_form", "records").nodes[3]
    locator = filled.step.action.browser.fill_form.fields[0].target.locator
    assert (locator.role, locator.name, locator.field) == ("textbox", "Number", "")


def test_a_column_that_fits_no_field_ends_the_planning_with_a_hint() -> None:
    run = Mission(SITE, b"Number,Zodiac\nA,x\n")
    run.extend("inspect_form")
    run.done(_field("number"))
    with pytest.raises(Precondition, match="say which belongs where with the input `columns`") as caught:
        run.extend("inspect_form", "records")
    assert caught.value.reason == "FORM_MISMATCH"


def test_records_without_a_table_are_refused() -> None:
    run = Mission(SITE, b"")
    with pytest.raises(Precondition) as caught:
        run.extend("records")
    assert caught.value.reason == "NO_TABLE"


def test_a_phase_that_nobody_knows_is_an_error_that_names_the_others() -> None:
    with pytest.raises(Internal) as caught:
        Mission(SITE).extend("dance")
    assert caught.value.reason == "UNKNOWN_PHASE"
    known = "inspect_form, nothing, outcome_table, records, sign_in"
    assert caught.value.message == f"a template names the phase 'dance'; there are {known}"


def test_nobody_signs_in_without_a_user_name() -> None:
    assert Mission(SITE).extend("sign_in").nodes == ()


SIGN_IN = SITE | {"username": "clerk", "password": "{{secret:clerk}}", "login": "/login/"}


def test_signing_in_looks_at_the_page_first_and_then_fills_in_what_is_there() -> None:
    run = Mission(SIGN_IN | {"expect": "Welcome"})
    looked = run.extend("sign_in", "nothing")
    assert (_titles(looked), looked.more) == (["Sign in", "Open the sign-in page"], True)
    assert looked.nodes[1].step.action.browser.navigate.url == "http://app/login/"
    assert looked.nodes[0].group.max_restarts == 1
    run.done(_field("search", form=0), _field("user", "email", form=1), _field("pw", "password", form=1))
    further = run.extend("sign_in", "nothing")
    assert further.more
    fill, send = further.nodes
    assert {fill.parent_id, send.parent_id} == {looked.nodes[0].node_id}
    fields = fill.step.action.browser.fill_form.fields
    assert [(field.target.locator.field, field.value) for field in fields] == [
        ("user", "clerk"),
        ("pw", "{{secret:clerk}}"),
    ]
    assert [field.label for field in fields] == ["user name", "password"]
    assert send.step.action.browser.press_key.key == "Enter"
    assert send.step.action.effect_class == eff.EFFECT_CLASS_IDEMPOTENT
    gone, expected = send.step.postconditions
    assert (gone.element.locator.css, gone.element.absent) == ("input[type=password]", True)
    assert expected.text.text == "Welcome"
    assert run.extend("sign_in", "nothing").nodes[0].group.phase == "nothing"


def test_signing_in_as_the_last_phase_leaves_nothing_to_plan() -> None:
    run = Mission(SIGN_IN)
    looked = run.extend("sign_in")
    assert (looked.more, looked.reason) == (True, "signing in comes first")
    run.done(_field("user"), _field("pw", "password"))
    further = run.extend("sign_in")
    assert (further.more, further.reason) == (False, "signing in comes first")
    send = further.nodes[1]
    assert send.step.action.browser.observe_after.form_fields
    assert [claim.WhichOneof("claim") for claim in send.step.postconditions] == ["element"]


def test_in_a_dry_run_the_user_name_is_looked_for_by_its_role() -> None:
    fill = Mission(SIGN_IN, dry_run=True).extend("sign_in").nodes[2]
    user, password = (field.target.locator for field in fill.step.action.browser.fill_form.fields)
    assert (user.role, user.name, password.css) == ("textbox", "user name", "input[type=password]")


def test_where_nobody_has_to_sign_in_the_next_phase_begins() -> None:
    run = Mission(SIGN_IN)
    run.extend("sign_in")
    run.done(_field("search"))
    assert run.extend("sign_in").nodes == ()


def test_a_page_that_asks_for_no_password_is_no_proof_of_being_signed_in() -> None:
    run = Mission(SIGN_IN | {"expect": "Welcome"})
    run.extend("sign_in")
    run.done(_field("search"))
    further = run.extend("sign_in")
    [seen] = further.nodes
    assert seen.step.action.browser.navigate.url == "http://app/login/"
    assert [claim.text.text for claim in seen.step.postconditions] == ["Welcome"]
    run.done()
    assert run.extend("sign_in").nodes == ()


def test_a_large_plan_becomes_events_that_fit_into_messages() -> None:
    rows = b"Number,Total\n" + b"".join(b"A-%d,%d\n" % (number, number) for number in range(2000))
    run = Mission(SITE | {"list": "/?q={key}"}, rows)
    run.extend(*DATA_ENTRY)
    run.done(*FORM)
    extension = extend(DATA_ENTRY, run.known)
    events = events_of(extension, "template")
    assert len(events) > 2
    assert all(event.ByteSize() < 1024 * 1024 for event in events)
    assert tuple(node for event in events for node in event.nodes) == extension.nodes
    assert [event.more for event in events] == [True] * len(events)
    assert [event.more for event in events_of(replace(extension, more=False), "template")][-2:] == [True, False]
    for event in events:
        run.tell(ev.EventBody(plan_extended=event))
    assert len(run.folded.state.nodes) == 2 + len(extension.nodes)


def test_an_empty_extension_is_one_event_too() -> None:
    [event] = events_of(Extension((), "everything is planned", more=False), "template")
    assert (event.reason, event.more, len(event.nodes)) == ("everything is planned", False, 0)


def test_the_form_itself_is_the_sign_in_page_unless_another_is_named() -> None:
    run = Mission(SITE | {"username": "clerk"})
    assert run.extend("sign_in").nodes[1].step.action.browser.navigate.url == "http://app/add/"


def test_a_sign_in_form_without_a_field_for_the_user_name_is_refused() -> None:
    run = Mission(SIGN_IN)
    run.extend("sign_in")
    run.done(_field("pw", "password", form=1), _field("search", form=0))
    with pytest.raises(Precondition) as caught:
        run.extend("sign_in")
    assert caught.value.reason == "NO_USERNAME_FIELD"


def test_a_dry_run_plans_everything_without_having_seen_anything() -> None:
    run = Mission(SIGN_IN, dry_run=True)
    titles: list[str] = []
    while (extension := run.extend(*DATA_ENTRY)).nodes:
        titles += _titles(extension)
    assert titles[:4] == [
        "Sign in",
        "Open the sign-in page",
        "Fill in user name and password",
        "Send them and see that the sign-in page is gone",
    ]
    assert titles[-1] == "Write it as CSV and HTML"
    assert "Fill in 2 fields and read them back" in titles


@pytest.mark.parametrize(("steps", "planned"), [("", 20), ("3", 3)])
def test_the_self_test_plans_so_many_steps_that_do_nothing(steps: str, planned: int) -> None:
    extension = Mission({"steps": steps}).extend("nothing")
    assert len(extension.nodes) == 1 + planned
    assert (extension.nodes[1].title, extension.nodes[-1].title) == ("Nothing 1", f"Nothing {planned}")
    assert extension.nodes[1].step.action.effect_class == eff.EFFECT_CLASS_IDEMPOTENT
    assert extension.nodes[1].step.action.HasField("noop")
    assert not extension.more


def test_the_outcome_table_is_written_by_the_control_plane_itself() -> None:
    group, written = Mission(SITE).extend("outcome_table").nodes
    assert group.group.on_failure == plan.ON_FAILURE_CONTINUE
    assert written.step.control == plan.CONTROL_STEP_OUTCOME_TABLE
    assert not written.step.HasField("action")


def test_an_extension_that_fits_is_one_event() -> None:
    extension = Mission({"steps": "3"}).extend("nothing")
    [event] = events_of(extension, "template")
    assert (list(event.nodes), event.more, event.planner) == (list(extension.nodes), False, "template")


def test_the_table_is_printed_from_the_html_that_was_stored() -> None:
    html = br.PdfAction(name="outcome.pdf")
    node = print_table(Mission(SITE).known, "G", html)
    assert (node.parent_id, node.title) == ("G", "Print it as PDF")
    assert (node.step.action.effect_class, node.step.action.browser.pdf) == (eff.EFFECT_CLASS_READ, html)
