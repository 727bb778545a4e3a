import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.facts import action_name, facts_of, single_actions
from infra.errors import InvalidArgument
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import browser_pb2 as br
from skyagent.execution.v1 import desktop_pb2 as dt
from skyagent.execution.v1 import tool_pb2 as tl
from skyagent.execution.v1 import workspace_pb2 as ws
from skyagent.execution.v1.facts_pb2 import Facts


def _browser(action: br.BrowserAction) -> act.Action:
    return act.Action(browser=action)


def _navigate(url: str) -> Facts:
    return facts_of(_browser(br.BrowserAction(navigate=br.NavigateAction(url=url))))


def _field(label: str, value: str, name: str = "", css: str = "") -> br.FieldValue:
    return br.FieldValue(label=label, value=value, target=br.Target(locator=br.Locator(name=name, css=css)))


def _submit(*fields: br.FieldValue) -> Facts:
    return facts_of(_browser(br.BrowserAction(click=br.ClickAction(expect=fields))))


@pytest.mark.parametrize(
    ("url", "host", "scheme"),
    [
        ("https://Example.COM/path", "example.com", "https"),
        ("http://127.0.0.1:8000/", "127.0.0.1:8000", "http"),
        ("https://example.com:443/", "example.com", "https"),
        ("http://example.com:443/", "example.com:443", "http"),
        ("http://[::1]:80/", "[::1]", "http"),
        ("https://bücher.example/", "xn--bcher-kva.example", "https"),
        ("https://example.com./", "example.com", "https"),
        ("file:///etc/passwd", "", "file"),
        ("javascript:alert(1)", "", "javascript"),
        (f"http://{'ü' * 64}.example/", "invalid", "http"),
    ],
)
def test_an_address_gives_host_and_scheme(url: str, host: str, scheme: str) -> None:
    facts = _navigate(url)
    assert (facts.host, facts.scheme, facts.intent) == (host, scheme, "view")


@pytest.mark.parametrize(
    "url",
    [
        "http://good.example@evil.example/",
        "http://good.example\\@evil.example/",
        "http://good.example\t.evil.example/",
        " http://good.example/",
        "http://good.example:99999/",
        "http://[::1/",
        "http:///path",
    ],
)
def test_an_address_that_two_parsers_may_read_differently_has_no_valid_scheme(url: str) -> None:
    facts = _navigate(url)
    assert (facts.host, facts.scheme, facts.intent, facts.sends_data) == ("", "invalid", "view", True)


@given(st.text(max_size=60))
def test_any_address_has_facts(url: str) -> None:
    _navigate(url)
    _navigate(f"http://{url}")


def test_reading_another_address_or_opening_a_tab_is_judged_like_going_there() -> None:
    for action in (
        br.BrowserAction(extract=br.ExtractAction(url="http://a.example/x")),
        br.BrowserAction(tabs=br.TabsAction(operation=br.TABS_OPERATION_NEW, url="http://a.example/x")),
    ):
        assert facts_of(_browser(action)).host == "a.example"


def test_a_query_sends_data() -> None:
    assert _navigate("http://a.example/?q=1").sends_data
    assert not _navigate("http://a.example/").sends_data


def test_a_click_that_carries_values_is_a_submission_with_its_largest_amount() -> None:
    facts = _submit(_field("Total", "12,500.00"), _field("Net amount", "€ 99"), _field("Year", "202600"))
    assert (facts.intent, facts.sends_data, facts.amount_cents) == ("submit", True, 1_250_000)


@pytest.mark.parametrize(
    ("field", "cents"),
    [
        (_field("Total", "12,500.00"), 1_250_000),
        (_field("", "1.234,56", name="Gross price"), 123_456),
        (_field("x", "99", css="#id_amount"), 9_900),
        (_field("x", "99", css="input[name='net-amount']"), 9_900),
        (_field("totalAmount", "1.234"), 123_400),
        (_field("Summe", "1e6"), 100_000_000),
        (_field("Cost", "-50"), 5_000),
        (_field("Total", "0.001"), 1),
        (_field("Total", "1e99"), 2**63 - 1),
        (_field("Total", "9999999999999999"), 999_999_999_999_999_900),
        (_field("Total", "10000000000000000"), 2**63 - 1),
        *((_field(f"Le {word}:", "7"), 700) for word in ("Betrag", "Preis", "Kosten", "Prix", "Montant", "Summe")),
        *((_field(word, "7"), 700) for word in ("Importe", "Kwota", "Brutto", "Netto", "Price", "Sum", "Net")),
        (_field("Total", "about 3 000 EUR"), 300_000),
        (_field("Invoice TOTAL (EUR)", "０１０"), 1_000),
    ],
)
def test_money_is_found_by_name_and_read_carefully(field: br.FieldValue, cents: int) -> None:
    assert _submit(field).amount_cents == cents


def test_without_money_there_is_no_amount() -> None:
    assert not _submit(_field("Invoice number", "12500")).HasField("amount_cents")
    assert not _submit(_field("Total", "none")).HasField("amount_cents")


def test_a_plain_click_is_no_submission() -> None:
    facts = facts_of(_browser(br.BrowserAction(click=br.ClickAction())))
    assert (facts.intent, facts.sends_data) == ("interact", False)


def test_typing_with_enter_and_pressing_enter_submit() -> None:
    typed = br.BrowserAction(type=br.TypeAction(text="5000", submit=True, target=_field("", "", name="Amount").target))
    assert facts_of(_browser(typed)).amount_cents == 500_000
    keys = [br.BrowserAction(press_key=br.PressKeyAction(key=key)) for key in ("Control+Enter", "NumpadEnter")]
    for facts in [facts_of(_browser(action)) for action in (typed, *keys)]:
        assert (facts.intent, facts.sends_data) == ("submit", True)


def test_filling_in_a_secret_is_a_login() -> None:
    form = br.FillFormAction(fields=[_field("Password", "{{secret:admin_pw}}"), _field("User", "{{ secret:user }}")])
    facts = facts_of(_browser(br.BrowserAction(fill_form=form)))
    assert (facts.intent, list(facts.secrets)) == ("login", ["admin_pw", "user"])


def test_a_secret_is_found_wherever_it_hides() -> None:
    tool = act.Action(tool=tl.ToolAction(tool="mail"))
    tool.tool.arguments.update({"to": [{"name": "{{secret:a}}"}]})
    environment = act.Action(
        workspace=ws.WorkspaceAction(exec=ws.ExecAction(argv=["x"], environment={"K": "{{secret:b}}"}))
    )
    stdin = act.Action(workspace=ws.WorkspaceAction(exec=ws.ExecAction(argv=["x"], stdin=b"{{secret:c}}")))
    url = _browser(br.BrowserAction(navigate=br.NavigateAction(url="http://x.example/{{secret:d}}")))
    found = [list(facts_of(action).secrets) for action in (tool, environment, stdin, url)]
    assert found == [["a"], ["b"], ["c"], ["d"]]
    assert all(facts_of(action).intent != "login" for action in (tool, environment, stdin, url))


def test_other_workers_actions_have_facts_too() -> None:
    run = facts_of(
        act.Action(workspace=ws.WorkspaceAction(exec=ws.ExecAction(argv=["ls"], directory="src", network=True)))
    )
    assert (run.program, run.path, run.intent, run.sends_data) == ("ls", "src", "exec", True)
    write = facts_of(act.Action(workspace=ws.WorkspaceAction(write_file=ws.WriteFileAction(path="a/b"))))
    assert (write.path, write.intent) == ("a/b", "write")
    launch = facts_of(act.Action(desktop=dt.DesktopAction(launch=dt.LaunchAction(argv=["gedit"]))))
    assert (launch.program, launch.intent) == ("gedit", "launch")


def test_a_batch_has_the_gravest_facts_of_its_actions() -> None:
    total = _browser(br.BrowserAction(click=br.ClickAction(expect=[_field("Total", "5")])))
    secret = _browser(br.BrowserAction(fill=br.FillAction(value="{{secret:s}}")))
    facts = facts_of(act.Action(batch=act.ActionBatch(actions=[secret, total])))
    assert (facts.intent, facts.amount_cents, facts.sends_data, list(facts.secrets)) == ("batch", 500, True, ["s"])


def test_batches_in_batches_are_flattened_and_bounded() -> None:
    action = act.Action(noop=act.NoopAction())
    for _ in range(8):
        action = act.Action(batch=act.ActionBatch(actions=[action, act.Action(noop=act.NoopAction())]))
    assert len(list(single_actions(action))) == 9
    with pytest.raises(InvalidArgument, match="flatten") as refused:
        list(single_actions(act.Action(batch=act.ActionBatch(actions=[action]))))
    assert refused.value.violations[0].field == "action.batch"


def test_a_batch_goes_where_the_first_of_its_actions_goes() -> None:
    visits = [
        _browser(br.BrowserAction(navigate=br.NavigateAction(url=url))) for url in ("https://a.example/", "ftp:x")
    ]
    runs = [ws.WorkspaceAction(exec=ws.ExecAction(argv=[name], directory=name)) for name in ("ls", "rm")]
    actions = [act.Action(noop=act.NoopAction()), *visits, *(act.Action(workspace=run) for run in runs)]
    facts = facts_of(act.Action(batch=act.ActionBatch(actions=actions)))
    assert (facts.host, facts.scheme, facts.path, facts.program) == ("a.example", "https", "ls", "ls")
    assert not facts.sends_data


def test_a_tools_call_sends_data_to_its_program_and_nothing_does_nothing() -> None:
    call = facts_of(act.Action(tool=tl.ToolAction(tool="mail")))
    assert (call.intent, call.program, call.sends_data) == ("call", "mail", True)
    assert facts_of(act.Action(noop=act.NoopAction())) == Facts(intent="none")


def test_every_kind_of_action_has_a_name_in_policies() -> None:
    named = {
        "tool.call": act.Action(tool=tl.ToolAction(tool="mail")),
        "noop": act.Action(noop=act.NoopAction()),
        "batch": act.Action(batch=act.ActionBatch()),
        "browser.nothing": act.Action(browser=br.BrowserAction()),
        "nothing": act.Action(),
    }
    assert {name: action_name(action) for name, action in named.items()} == {name: name for name in named}


INTENTS = {
    "browser": {
        "view": "navigate go_back reload observe scroll wait_for extract screenshot tabs pdf hover",
        "interact": "click press_key drag handle_dialog",
        "fill": "type fill fill_form select check",
        "upload": "upload",
        "download": "download",
    },
    "desktop": {
        "launch": "launch",
        "view": "observe scroll settle",
        "interact": "click key drag window",
        "fill": "type",
    },
    "workspace": {"exec": "exec", "read": "read_file list_files", "write": "write_file", "remove": "remove_file"},
}


def test_every_arm_of_the_contract_has_a_name_and_the_intent_that_policies_know() -> None:
    for kind, message in (
        ("browser", br.BrowserAction),
        ("desktop", dt.DesktopAction),
        ("workspace", ws.WorkspaceAction),
    ):
        intents = {arm: intent for intent, arms in INTENTS[kind].items() for arm in arms.split()}
        for arm in message.DESCRIPTOR.oneofs_by_name["action"].fields:
            inner = message()
            getattr(inner, arm.name).SetInParent()
            action = act.Action(**{kind: inner})  # pyright: ignore[reportArgumentType]
            assert action_name(action) == f"{kind}.{arm.name}"
            facts = facts_of(action)
            assert (facts.intent, facts.sends_data) == (intents[arm.name], arm.name == "upload"), arm.name


@pytest.mark.parametrize(
    "action",
    [
        ws.WorkspaceAction(read_file=ws.ReadFileAction(path="a/b")),
        ws.WorkspaceAction(list_files=ws.ListFilesAction(path="a/b")),
        ws.WorkspaceAction(remove_file=ws.RemoveFileAction(path="a/b")),
    ],
)
def test_whatever_is_done_to_a_file_its_path_is_a_fact(action: ws.WorkspaceAction) -> None:
    assert facts_of(act.Action(workspace=action)).path == "a/b"
