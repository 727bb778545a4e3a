"""The phases that templates are made of: signing in, looking at a form, entering records, reporting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin

from google.protobuf.duration_pb2 import Duration

from control.core.facts import facts_of
from control.core.matching import Pair, match_fields, parse_mapping
from control.core.tables import Table
from infra.errors import Precondition
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import browser_pb2 as br
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.run.v1 import plan_pb2 as plan

if TYPE_CHECKING:
    from control.core.planner import Known

SESSION = "main"
SETTLE = Duration(seconds=2)
PATIENCE = Duration(seconds=30)
"""For one action of a page; a busy application may take its time."""
_PASSWORD = br.Locator(css="input[type=password]")


@dataclass(frozen=True, slots=True)
class Phase:
    """One part of a template's plan. `begin` plans its first steps, `go_on` those that need what the first ones saw."""

    reason: str
    begin: Callable[[Known], tuple[plan.PlanNode, ...]]
    go_on: Callable[[Known], tuple[plan.PlanNode, ...]]
    looks_first: bool = False
    reads: frozenset[str] = frozenset()
    """The inputs that it plans from."""


def _nothing(_known: Known) -> tuple[plan.PlanNode, ...]:
    return ()


def _sign_in(known: Known) -> tuple[plan.PlanNode, ...]:
    if not known.inputs.get("username"):
        return ()
    group = _group(known, "sign_in", "Sign in", max_restarts=1)
    opened = _step(known, group, "Open the sign-in page", _navigate(_sign_in_url(known)))
    if known.folded.state.spec.dry_run:
        return (group, opened, *_credentials(known, group, _username_locator(), _PASSWORD))
    return (group, opened)


def _sign_in_further(known: Known) -> tuple[plan.PlanNode, ...]:
    steps = known.steps("sign_in")
    group = known.group("sign_in")
    if len(steps) != 1 or group is None:
        return ()
    fields = known.seen(steps[0]).browser.observation.form_fields
    password = next((field for field in fields if field.type == "password"), None)
    if password is None:
        return _signed_in_already(known, group.node)
    form = [field for field in fields if field.form_index == password.form_index]
    mates = [field for field in form if field.type in ("text", "email", "")]
    if not mates:
        raise Precondition("NO_USERNAME_FIELD", "the sign-in form has a password field and no field for the user name")
    return _credentials(known, group.node, _locator(mates[0]), _locator(password))


def _sign_in_url(known: Known) -> str:
    return urljoin(known.inputs["site"], known.inputs.get("login") or known.inputs.get("form") or "")


def _signed_in_already(known: Known, group: plan.PlanNode) -> tuple[plan.PlanNode, ...]:
    """A page that asks for no password proves nothing by itself: it may be the wrong one."""
    if not known.inputs.get("expect"):
        return ()
    return (_step(known, group, "See that somebody is signed in", _navigate(_sign_in_url(known)), _expected(known)),)


def _expected(known: Known) -> plan.Postcondition:
    return plan.Postcondition(text=plan.TextIs(text=known.inputs["expect"]))


def _credentials(
    known: Known, group: plan.PlanNode, username: br.Locator, password: br.Locator
) -> tuple[plan.PlanNode, ...]:
    fields = [
        br.FieldValue(target=br.Target(locator=username), value=known.inputs["username"], label="user name"),
        br.FieldValue(target=br.Target(locator=password), value=known.inputs.get("password", ""), label="password"),
    ]
    fill = _browser(eff.EFFECT_CLASS_IDEMPOTENT, fill_form=br.FillFormAction(fields=fields))
    enter = br.PressKeyAction(key="Enter", target=br.Target(locator=password), expect_navigation=True)
    send = _browser(eff.EFFECT_CLASS_IDEMPOTENT, press_key=enter)
    send.browser.observe_after.CopyFrom(br.ObserveAction(scope=br.OBSERVE_SCOPE_VIEWPORT, form_fields=True))
    gone = plan.Postcondition(element=plan.ElementIs(locator=_PASSWORD, absent=True))
    claims = [gone]
    if known.inputs.get("expect"):
        claims.append(_expected(known))
    read_back = plan.Postcondition(fields_read_back=plan.FieldsReadBack())
    return (
        _step(known, group, "Fill in user name and password", fill, read_back),
        _step(known, group, "Send them and see that the sign-in page is gone", send, *claims),
    )


def _inspect_form(known: Known) -> tuple[plan.PlanNode, ...]:
    group = _group(known, "inspect_form", "Look at the form", max_restarts=1)
    return (group, _step(known, group, "Open the form and read its fields", _open_form(known)))


def _records(known: Known) -> tuple[plan.PlanNode, ...]:
    table = _table(known)
    pairs = _matched(known, table)
    group = _group(known, "records", f"Enter {len(table.rows)} records", on_failure=plan.ON_FAILURE_CONTINUE)
    nodes: list[plan.PlanNode] = [group]
    for row in table.rows:
        nodes += _record(known, group, table, dict(zip(table.columns, row, strict=True)), pairs)
    return tuple(nodes)


def _record(
    known: Known, records: plan.PlanNode, table: Table, row: dict[str, str], pairs: tuple[Pair, ...]
) -> list[plan.PlanNode]:
    key = row[known.inputs.get("key") or table.columns[0]]
    group = _group(known, "", key, parent=records, on_failure=plan.ON_FAILURE_CONTINUE, record_key=key, restart=True)
    values = [_value(pair, row[pair.column]) for pair in pairs if row[pair.column]]
    fill = _browser(eff.EFFECT_CLASS_IDEMPOTENT, fill_form=br.FillFormAction(fields=values))
    read_back = plan.Postcondition(fields_read_back=plan.FieldsReadBack())
    return [
        group,
        _step(known, group, "Open an empty form", _open_form(known), _answered("GET")),
        _step(known, group, f"Fill in {len(values)} fields and read them back", fill, read_back),
        _save(known, group, key, values),
    ]


def _save(known: Known, group: plan.PlanNode, key: str, values: list[br.FieldValue]) -> plan.PlanNode:
    """The step that sends the form. Without a list page nobody can ask whether it happened: then it is sent once."""
    button = br.Target(locator=br.Locator(role="button", name=known.inputs.get("submit") or "Save"))
    click = br.ClickAction(target=button, expect=values, expect_navigation=True)
    if not known.inputs.get("list"):
        return _step(known, group, "Save the record", _browser(eff.EFFECT_CLASS_ONCE, click=click), _answered("POST"))
    listed = plan.Listed(url=_list_url(known, key), key=key, cells=values, count=1)
    action = _browser(eff.EFFECT_CLASS_PROBEABLE, click=click)
    node = _step(known, group, "Save the record", action, _answered("POST"), plan.Postcondition(listed=listed))
    node.step.settle.CopyFrom(SETTLE)
    return node


def _outcome_table(known: Known) -> tuple[plan.PlanNode, ...]:
    group = _group(known, "outcome_table", "Write the outcome table", on_failure=plan.ON_FAILURE_CONTINUE)
    step = plan.Step(control=plan.CONTROL_STEP_OUTCOME_TABLE)
    node = plan.PlanNode(node_id=known.new_id(), parent_id=group.node_id, title="Write it as CSV and HTML", step=step)
    return (group, node)


def _nothing_to_do(known: Known) -> tuple[plan.PlanNode, ...]:
    """Steps that do nothing, at the full price of one: judged, journalled, sent to a worker, recorded."""
    group = _group(known, "nothing", "Do nothing, with every rule on")
    action = act.Action(effect_class=eff.EFFECT_CLASS_IDEMPOTENT, noop=act.NoopAction())
    steps = int(known.inputs.get("steps") or 20)
    return (group, *(_step(known, group, f"Nothing {number}", action) for number in range(1, steps + 1)))


def print_table(known: Known, group_id: str, html: br.PdfAction) -> plan.PlanNode:
    """The step that prints the outcome table, once its HTML is stored."""
    action = _browser(eff.EFFECT_CLASS_READ, pdf=html)
    step = plan.Step(action=action, facts=facts_of(action))
    return plan.PlanNode(node_id=known.new_id(), parent_id=group_id, title="Print it as PDF", step=step)


def _table(known: Known) -> Table:
    if known.table is None:
        raise Precondition("NO_TABLE", "the mission has no table of records; give one as the input file `rows`")
    return known.table


def _matched(known: Known, table: Table) -> tuple[Pair, ...]:
    """Which column goes into which field; in a dry run the columns' own names stand for the fields."""
    if known.folded.state.spec.dry_run:
        return tuple(Pair(column, br.FormField(label=column), 1.0, "dry run") for column in table.columns)
    fields = known.seen(known.steps("inspect_form")[0]).browser.observation.form_fields
    explicit = parse_mapping(known.inputs.get("columns", ""))
    matching = match_fields(table.columns, table.rows[:50], fields, explicit=explicit)
    problems = matching.problems()
    if problems:
        hint = 'say which belongs where with the input `columns`, for instance "Vendor=Supplier; Total=Amount"'
        raise Precondition("FORM_MISMATCH", f"{'; '.join(problems)}; {hint}")
    return matching.pairs


def _list_url(known: Known, key: str) -> str:
    return urljoin(known.inputs["site"], known.inputs["list"].replace("{key}", quote(key, safe="")))


def _open_form(known: Known) -> act.Action:
    return _navigate(urljoin(known.inputs["site"], known.inputs["form"]))


def _navigate(url: str) -> act.Action:
    action = _browser(eff.EFFECT_CLASS_READ, navigate=br.NavigateAction(url=url))
    action.browser.observe_after.CopyFrom(br.ObserveAction(scope=br.OBSERVE_SCOPE_VIEWPORT, form_fields=True))
    return action


def _browser(
    effect: eff.EffectClass.ValueType,
    *,
    navigate: br.NavigateAction | None = None,
    fill_form: br.FillFormAction | None = None,
    press_key: br.PressKeyAction | None = None,
    click: br.ClickAction | None = None,
    pdf: br.PdfAction | None = None,
) -> act.Action:
    browser = br.BrowserAction(
        session_id=SESSION,
        timeout=PATIENCE,
        navigate=navigate,
        fill_form=fill_form,
        press_key=press_key,
        click=click,
        pdf=pdf,
    )
    return act.Action(effect_class=effect, browser=browser)


def _answered(method: str) -> plan.Postcondition:
    return plan.Postcondition(http_status=plan.HttpStatus(method=method, min=200, max=399))


def _value(pair: Pair, value: str) -> br.FieldValue:
    label = pair.field.label.rstrip(" :*") or pair.column
    return br.FieldValue(target=br.Target(locator=_locator(pair.field)), value=value, label=label)


def _locator(field: br.FormField) -> br.Locator:
    """The field by its name attribute, which outlives the document; by its label when it has none."""
    return br.Locator(field=field.field) if field.field else br.Locator(role=field.role, name=field.label)


def _username_locator() -> br.Locator:
    return br.Locator(role="textbox", name="user name")


def _group(
    known: Known,
    phase: str,
    title: str,
    *,
    parent: plan.PlanNode | None = None,
    on_failure: plan.OnFailure.ValueType = plan.ON_FAILURE_ABORT,
    record_key: str = "",
    restart: bool = False,
    max_restarts: int = 0,
) -> plan.PlanNode:
    group = plan.Group(
        phase=phase,
        on_failure=on_failure,
        record_key=record_key,
        restart_from_first=restart or bool(max_restarts),
        max_restarts=max_restarts,
    )
    parent_id = parent.node_id if parent else ""
    return plan.PlanNode(node_id=known.new_id(), parent_id=parent_id, title=title, group=group)


def _step(
    known: Known, group: plan.PlanNode, title: str, action: act.Action, *claims: plan.Postcondition
) -> plan.PlanNode:
    step = plan.Step(action=action, postconditions=claims, facts=facts_of(action))
    return plan.PlanNode(node_id=known.new_id(), parent_id=group.node_id, title=title, step=step)


PHASES = MappingProxyType(
    {
        "sign_in": Phase(
            "signing in comes first",
            _sign_in,
            _sign_in_further,
            looks_first=True,
            reads=frozenset({"site", "login", "form", "username", "password", "expect"}),
        ),
        "inspect_form": Phase(
            "the form tells which column goes where", _inspect_form, _nothing, reads=frozenset({"site", "form"})
        ),
        "records": Phase(
            "every record is one group, tried and checked on its own",
            _records,
            _nothing,
            reads=frozenset({"site", "form", "rows", "key", "list", "proof", "submit", "columns"}),
        ),
        "nothing": Phase(
            "the mesh is to be tried, not the world", _nothing_to_do, _nothing, reads=frozenset({"steps"})
        ),
        "outcome_table": Phase("what became of every record is written down", _outcome_table, _nothing),
    }
)
