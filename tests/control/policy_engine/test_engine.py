import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.policy_engine.engine import Bundle, default_policies
from control.policy_engine.request import questions, questions_from
from infra.errors import InvalidArgument
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import browser_pb2 as br
from skyagent.execution.v1 import desktop_pb2 as dt
from skyagent.execution.v1 import tool_pb2 as tl
from skyagent.execution.v1 import workspace_pb2 as ws
from skyagent.mission.v1.mission_pb2 import Limits, MissionSpec
from skyagent.policy.v1 import decision_pb2 as pb
from skyagent.policy.v1.policy_service_pb2 import CheckRequest, Spent, Taint

CORE = Bundle(default_policies())
ALLOW, ASK, DENY = pb.VERDICT_ALLOW, pb.VERDICT_ASK, pb.VERDICT_DENY


def _check(action: act.Action, *hosts: str, limits: Limits | None = None, **more: object) -> CheckRequest:
    spec = MissionSpec(goal="g", allowed_hosts=hosts or ("shop.example",), limits=limits or Limits(max_steps=100))
    return CheckRequest(tenant="t", actor="ada", spec=spec, action=action, **more)  # pyright: ignore[reportArgumentType]


def _judge(
    check: CheckRequest, tenant: str = "t", bundle: Bundle = CORE
) -> tuple[pb.Verdict.ValueType, tuple[str, ...]]:
    judged = bundle.judge(questions(check, tenant))
    return judged.verdict, judged.policy_ids


def _goto(url: str) -> act.Action:
    return act.Action(browser=br.BrowserAction(navigate=br.NavigateAction(url=url)))


def _submit(amount: str) -> act.Action:
    field = br.FieldValue(label="Total", value=amount)
    return act.Action(browser=br.BrowserAction(click=br.ClickAction(expect=[field])))


def _fill(value: str) -> act.Action:
    return act.Action(browser=br.BrowserAction(fill=br.FillAction(value=value)))


ASKS = Limits(max_steps=100, approve_above_cents=1_000_000)


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("https://shop.example/x", ("shop.example",)),
        ("http://a.shop.example/", ("*.shop.example",)),
        ("http://127.0.0.1:8000/", ("127.0.0.1:8000",)),
        ("http://LOCALHOST:8000/", ("Localhost:8000",)),
        ("http://[::1]:8000/", ("[::1]:8000",)),
    ],
)
def test_an_agent_goes_where_the_mission_says(url: str, hosts: tuple[str, ...]) -> None:
    assert _judge(_check(_goto(url), *hosts)) == (ALLOW, ("visit.allowed-hosts",))


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("https://other.example/", ("shop.example",)),
        ("https://shop.example.evil.example/", ("shop.example",)),
        ("https://shop.example:8443/", ("shop.example",)),
        ("https://shop.example/", ("*.shop.example",)),
        ("ftp://shop.example/", ("shop.example",)),
        ("file:///etc/passwd", ("shop.example",)),
        ("javascript:alert(1)", ("shop.example",)),
        ("https://shop.example@evil.example/", ("shop.example", "evil.example")),
        ("data:text/html,x", ("shop.example",)),
    ],
)
def test_an_agent_goes_nowhere_else(url: str, hosts: tuple[str, ...]) -> None:
    verdict, ids = _judge(_check(_goto(url), *hosts))
    assert verdict == DENY
    assert "visit.outside" in ids


@pytest.mark.parametrize(
    ("url", "wildcard"),
    [
        ("http://metadata.internal/", "*.internal"),
        ("http://x.localhost/", "*.localhost"),
        ("http://0x7f.0x1/", "*.0x1"),
        ("http://127.1/", "*.1"),
    ],
)
def test_a_wildcard_never_reaches_this_machine_or_its_network(url: str, wildcard: str) -> None:
    verdict, ids = _judge(_check(_goto(url), wildcard))
    assert verdict == DENY
    assert "visit.private-address" in ids


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "192.168.1.1",
        "172.31.0.1",
        "[::1]",
        "[fd00::1]",
        "[::ffff:127.0.0.1]",
    ],
)
def test_a_private_address_is_reached_only_when_the_mission_names_it(host: str) -> None:
    assert _judge(_check(_goto(f"http://{host}/"), "shop.example"))[0] == DENY
    assert "visit.private-address" in _judge(_check(_goto(f"http://{host}/"), "shop.example"))[1]
    assert _judge(_check(_goto(f"http://{host}/"), host))[0] == ALLOW


def test_reading_another_address_in_a_tab_is_judged_like_going_there() -> None:
    extract = br.BrowserAction(extract=br.ExtractAction(url="https://evil.example/"))
    assert _judge(_check(act.Action(browser=extract)))[0] == DENY
    assert _judge(_check(act.Action(browser=br.BrowserAction(extract=br.ExtractAction()))))[0] == ALLOW


def test_an_amount_up_to_the_limit_is_allowed_and_one_above_it_asks() -> None:
    assert _judge(_check(_submit("10,000.00"), limits=ASKS)) == (ALLOW, ("interact",))
    judged = CORE.judge(questions(_check(_submit("10,000.01"), limits=ASKS), "t"))
    assert (judged.verdict, judged.policy_ids) == (ASK, ("ask.amount",))
    assert judged.reasons == ("the amount 10,000.01 is above 10,000.00, from where on this mission asks",)
    assert [(asking.approver, asking.ttl) for asking in judged.asking] == [("approver", 900)]


def test_an_approval_lifts_what_asked() -> None:
    assert _judge(_check(_submit("99999"), limits=ASKS, approved=True))[0] == ALLOW


def test_an_approval_never_lifts_a_hard_limit() -> None:
    spent = Spent(steps=100)
    assert _judge(_check(_submit("99999"), limits=ASKS, spent=spent)) == (DENY, ("ask.amount", "budget.steps"))
    assert _judge(_check(_submit("99999"), limits=ASKS, spent=spent, approved=True)) == (DENY, ("budget.steps",))


def test_a_mission_without_a_limit_never_asks_about_amounts() -> None:
    assert _judge(_check(_submit("999999999")))[0] == ALLOW


@pytest.mark.parametrize(
    ("spent", "limits", "rule"),
    [
        (Spent(steps=5), Limits(max_steps=5), "budget.steps"),
        (Spent(cost_microusd=7), Limits(max_cost_microusd=7), "budget.cost"),
    ],
)
def test_a_budget_that_is_used_up_stops_the_run(spent: Spent, limits: Limits, rule: str) -> None:
    assert _judge(_check(_fill("x"), limits=limits, spent=spent)) == (DENY, (rule,))


def test_wall_time_is_a_budget_too() -> None:
    limits = Limits()
    limits.max_wall_time.seconds = 60
    assert _judge(_check(_fill("x"), limits=limits, spent=Spent(wall_seconds=60)))[1] == ("budget.time",)
    assert _judge(_check(_fill("x"), limits=limits, spent=Spent(wall_seconds=59)))[0] == ALLOW


def test_secrets_go_into_sign_in_forms_and_nowhere_else() -> None:
    assert _judge(_check(_fill("{{secret:pw}}")))[0] == ALLOW
    for action in (_goto("https://shop.example/?p={{secret:pw}}"), _submit("{{secret:pw}}")):
        verdict, ids = _judge(_check(action))
        assert (verdict, ids) == (DENY, ("secrets.only-to-sign-in",))


def test_sending_out_after_reading_untrusted_and_sensitive_content_asks() -> None:
    both = Taint(untrusted_seen=True, sensitive_seen=True)
    assert _judge(_check(_submit("1"), taint=both)) == (ASK, ("ask.exfiltration",))
    assert _judge(_check(_submit("1"), taint=Taint(untrusted_seen=True)))[0] == ALLOW
    assert _judge(_check(_fill("x"), taint=both))[0] == ALLOW


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "..", "a\0b"])
def test_files_outside_the_workspace_are_out_of_reach(path: str) -> None:
    for action in (
        ws.WorkspaceAction(read_file=ws.ReadFileAction(path=path)),
        ws.WorkspaceAction(write_file=ws.WriteFileAction(path=path)),
        ws.WorkspaceAction(exec=ws.ExecAction(argv=["ls"], directory=path)),
    ):
        assert _judge(_check(act.Action(workspace=action))) == (DENY, ("files.outside",))


def test_files_inside_are_in_reach_and_a_program_with_network_asks() -> None:
    inside = ws.WorkspaceAction(write_file=ws.WriteFileAction(path="a/../b"))
    assert _judge(_check(act.Action(workspace=inside)))[0] == ALLOW
    program = ws.WorkspaceAction(exec=ws.ExecAction(argv=["curl"], network=True))
    assert _judge(_check(act.Action(workspace=program))) == (ASK, ("ask.program-with-network",))


def test_another_tenants_mission_is_out_of_reach() -> None:
    assert _judge(_check(_fill("x")), tenant="other") == (DENY, ("tenant.isolation",))


def test_a_batch_is_judged_by_its_gravest_action() -> None:
    def batch(*actions: act.Action) -> act.Action:
        return act.Action(batch=act.ActionBatch(actions=actions))

    good, asks, bad = _fill("x"), _submit("99999"), _goto("https://evil.example/")
    assert _judge(_check(batch(good, good), limits=ASKS))[0] == ALLOW
    assert _judge(_check(batch(good, asks), limits=ASKS)) == (ASK, ("ask.amount",))
    assert _judge(_check(batch(good, batch(asks, bad)), limits=ASKS))[0] == DENY
    assert _judge(_check(batch(good, asks), limits=ASKS, approved=True))[0] == ALLOW


def test_every_action_of_the_contract_is_known_to_the_schema() -> None:
    kinds = (("browser", br.BrowserAction), ("desktop", dt.DesktopAction), ("workspace", ws.WorkspaceAction))
    actions = [act.Action(noop=act.NoopAction()), act.Action(tool=tl.ToolAction(tool="x"))]
    for kind, message in kinds:
        for arm in message.DESCRIPTOR.oneofs_by_name["action"].fields:
            inner = message()
            getattr(inner, arm.name).SetInParent()
            actions.append(act.Action(**{kind: inner}))  # pyright: ignore[reportArgumentType]
    for action in actions:
        judged = CORE.judge(questions(_check(action), "t"))
        assert not judged.errors, action
        assert judged.verdict == ALLOW or action.browser.HasField("navigate"), action


def test_an_action_that_is_none_is_denied() -> None:
    judged = CORE.judge(questions(_check(act.Action()), "t"))
    assert judged.verdict == DENY
    assert judged.errors


@given(st.text(max_size=50), st.text(max_size=20), st.text(max_size=20))
def test_no_url_amount_or_actor_makes_the_engine_fail_open(url: str, amount: str, actor: str) -> None:
    for action in (_goto(url), _goto(f"https://{url}"), _submit(amount)):
        check = _check(action, limits=ASKS)
        check.actor = actor
        judged = CORE.judge(questions(check, "t"))
        if action.browser.HasField("navigate") and judged.verdict == ALLOW:
            assert "shop.example" in action.browser.navigate.url.lower()


def test_the_recorded_request_gives_the_same_judgement_again() -> None:
    asked = questions(_check(_submit("99999"), limits=ASKS), "t")
    again = questions_from(asked.canonical())
    assert again.canonical() == asked.canonical()
    assert CORE.judge(again) == CORE.judge(asked)


@pytest.mark.parametrize("recorded", [b"", b"{}", b"[]", b"[1]", b'[{"context": {}}]', b"\xff"])
def test_a_recorded_request_that_is_damaged_is_never_allowed(recorded: bytes) -> None:
    with pytest.raises(ValueError, match=r"validation error|at least one"):
        CORE.judge(questions_from(recorded))


def test_a_policy_that_fails_to_evaluate_denies() -> None:
    # Cedar would skip the forbid: 9223372036854775807 + 1 overflows.
    text = """
      @id("all") permit (principal, action, resource);
      @id("broken") forbid (principal, action, resource) when { context.spent.steps + 9223372036854775807 > 5 };
    """
    judged = Bundle(text).judge(questions(_check(_fill("x"), spent=Spent(steps=1)), "t"))
    assert judged.verdict == DENY
    assert "overflow" in judged.errors[0]


def test_an_obligation_that_approval_does_not_lift_is_a_denial() -> None:
    text = """
      @id("all") permit (principal, action, resource);
      @id("never") @obligation("approval") forbid (principal, action, resource);
    """
    assert _judge(_check(_fill("x")), bundle=Bundle(text))[0] == DENY


def test_asking_and_another_denial_behind_it_do_not_bother_a_person() -> None:
    text = """
      @id("first") permit (principal, action, resource) unless { context.approved };
      @id("ask") @obligation("approval") forbid (principal, action, resource) unless { context.approved };
    """
    assert _judge(_check(_fill("x")), bundle=Bundle(text)) == (DENY, ("ask",))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("permit (", "unexpected end"),
        ("", "one at least"),
        ("permit (principal, action, resource);", "give it an id"),
        ('@id("a") permit (principal, action, resource) when { context.amont == 1 };', "amont"),
        ('@id("a") permit (principal, action == SkyAgent::Action::"browser.fly", resource);', "browser.fly"),
        ('@id("a") @obligation("tea") forbid (principal, action, resource);', "no obligation 'tea'"),
        ('@id("a") @obligation("approval") permit (principal, action, resource);', "belongs on a forbid"),
        ('@id("a") @ttl("soon") forbid (principal, action, resource);', "@ttl"),
        ('@id("a") permit (principal, action, resource);' * 2, "two policies have this id"),
        ('@id("a") permit (principal == ?principal, action, resource);', "no policy templates"),
    ],
)
def test_a_bundle_that_is_wrong_is_refused_with_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said) as caught:
        Bundle(text)
    assert caught.value.reason == "BAD_BUNDLE"


def test_the_digest_names_policies_and_schema() -> None:
    other = Bundle(default_policies() + " ")
    assert CORE.digest.startswith("b3:")
    assert other.digest != CORE.digest


def test_the_canonical_request_is_sorted_json_without_spaces() -> None:
    canonical = questions(_check(_fill("ü")), "t").canonical()
    parsed = json.loads(canonical)
    assert canonical == json.dumps(parsed, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def test_a_mission_whose_limits_changed_is_judged_by_its_new_ones() -> None:
    spent = Spent(steps=10)
    before = _check(act.Action(noop=act.NoopAction()), limits=Limits(max_steps=10), run_id="r", spent=spent)
    after = _check(act.Action(noop=act.NoopAction()), limits=Limits(max_steps=11), run_id="r", spent=spent)
    assert [_judge(one)[0] for one in (before, after, before)] == [DENY, ALLOW, DENY]


def test_entities_that_are_not_as_the_schema_has_them_are_denied() -> None:
    recorded = json.loads(questions(_check(act.Action(noop=act.NoopAction())), "t").canonical())
    recorded[0]["entities"][0]["attrs"]["tenant"] = 3
    judged = CORE.judge(questions_from(json.dumps(recorded).encode()))
    assert judged.verdict == DENY
    assert judged.errors
