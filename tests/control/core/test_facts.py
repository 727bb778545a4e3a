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
    assert (_navigate(url).host, _navigate(url).scheme) == ("", "invalid")


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
    pressed = br.BrowserAction(press_key=br.PressKeyAction(key="Control+Enter"))
    assert facts_of(_browser(typed)).amount_cents == 500_000
    assert [facts_of(_browser(action)).intent for action in (typed, pressed)] == ["submit", "submit"]


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
    with pytest.raises(InvalidArgument, match="flatten"):
        list(single_actions(act.Action(batch=act.ActionBatch(actions=[action]))))


def test_every_arm_of_the_contract_has_a_name_and_an_intent() -> None:
    for kind, message in (
        ("browser", br.BrowserAction),
        ("desktop", dt.DesktopAction),
        ("workspace", ws.WorkspaceAction),
    ):
        for arm in message.DESCRIPTOR.oneofs_by_name["action"].fields:
            inner = message()
            getattr(inner, arm.name).SetInParent()
            action = act.Action(**{kind: inner})  # pyright: ignore[reportArgumentType]
            assert action_name(action) == f"{kind}.{arm.name}"
            assert facts_of(action).intent
