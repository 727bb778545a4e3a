"""The parts that need no browser: hosts, secrets, differences, effects, states on disk."""

from __future__ import annotations

import base64
import html
import json
import stat
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execution.browser_worker import outcomes
from execution.browser_worker.hosts import HostList, leads_astray
from execution.browser_worker.observe import difference
from execution.browser_worker.secrets import MappingSecrets, Secret, Vault, secrets_of
from execution.browser_worker.stops import Refused
from execution.browser_worker.store import SavedSession, SessionStore
from skyagent.execution.v1 import browser_pb2 as pb
from skyagent.execution.v1.action_pb2 import OUTCOME_STATUS_FAILED, OUTCOME_STATUS_OK, Action, Outcome
from skyagent.execution.v1.effect_pb2 import (
    EFFECT_CLASS_IDEMPOTENT,
    EFFECT_CLASS_ONCE,
    EFFECT_CLASS_READ,
    EFFECT_DONE,
    EFFECT_NONE,
    EFFECT_UNKNOWN,
    Effect,
    EffectClass,
)

LISTED = HostList(("example.com", "*.wild.test", "127.0.0.1:8000", "[::1]:8000"))


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://example.com", True),
        ("https://EXAMPLE.com:443/x?y#z", True),
        ("http://example.com:80", True),
        ("http://a.wild.test:443/", True),
        ("https://example.com:444/", False),
        ("http://example.com:8080/", False),
        ("http://a.wild.test:8080/", False),
        ("http://a.wild.test/", True),
        ("http://a.b.wild.test/", True),
        ("http://127.0.0.1:8000/", True),
        ("http://[::1]:8000/", True),
        ("http://[::1]/", False),
        ("http://[::2]:8000/", False),
        ("about:blank", True),
        ("http://wild.test/", False),
        ("http://127.0.0.1/", False),
        ("http://127.0.0.1:80001/", False),
        ("http://127.0.0.1:9000/", False),
        ("http://example.com.evil.test/", False),
        ("http://evil.test/example.com", False),
        ("http://example.com@evil.test/", False),
        ("http://sub.example.com/", False),
        ("http://evilexample.com/", False),
        ("ftp://example.com/", False),
        ("file:///etc/passwd", False),
        ("view-source:http://example.com", False),
        ("//example.com", False),
        ("http://example.com:notaport/", False),
        ("http://", False),
    ],
)
def test_a_host_is_allowed_by_its_exact_name(url: str, *, allowed: bool) -> None:
    assert (LISTED.refusal(url) == "") is allowed
    if url.startswith("http") and "@" not in url and "notaport" not in url:
        assert (LISTED.outside().match(url.lower()) is None) is allowed


@given(st.text(alphabet="abc048.-:/@#?\\", max_size=20))
def test_nothing_is_requested_that_would_be_refused(rest: str) -> None:
    url = f"http://example.com{rest}"
    if LISTED.refusal(url):
        assert LISTED.outside().match(url)


def test_a_refusal_names_the_port_that_has_to_be_listed() -> None:
    assert "'example.com:8080' is not among" in LISTED.refusal("http://example.com:8080/")
    assert "'[::2]:8000' is not among" in LISTED.refusal("http://[::2]:8000/")
    assert "'other.test' is not among" in LISTED.refusal("https://other.test/")


def test_with_no_hosts_nothing_is_allowed() -> None:
    assert "none" in HostList(()).refusal("http://example.com/")
    assert HostList(()).outside().match("http://example.com/")


@pytest.mark.parametrize(
    ("host", "address", "astray"),
    [
        ("shop.example", "127.0.0.1", True),
        ("shop.example", "::1", True),
        ("shop.example", "::ffff:127.0.0.1", True),
        ("shop.example", "169.254.169.254", True),
        ("shop.example", "fe80::1%eth0", True),
        ("shop.example", "0.0.0.0", True),
        ("localhost", "169.254.169.254", True),
        ("shop.example", "10.1.2.3", False),
        ("shop.example", "93.184.216.34", False),
        ("localhost", "127.0.0.1", False),
        ("app.localhost", "127.0.0.1", False),
        ("127.0.0.1", "127.0.0.1", False),
        ("::1", "::1", False),
    ],
)
def test_a_public_name_may_not_lead_to_this_machine(host: str, address: str, *, astray: bool) -> None:
    assert leads_astray(host, address) is astray


def vault() -> Vault:
    variables = {
        "SKYAGENT_SECRET_KEY": "s3cr3t/val",
        "SKYAGENT_SECRET_BOUND": "abcd",
        "SKYAGENT_SECRET_BOUND__HOSTS": "a.test b.test 127.0.0.1:8000",
        "HOME": "/",
    }
    return Vault(secrets_of(variables))


PAGE = "http://b.test"


def test_a_secret_is_resolved_and_scrubbed() -> None:
    kept = vault()
    assert kept.resolve("x{{secret:key}}y {{ secret:key }}", PAGE) == "xs3cr3t/valy s3cr3t/val"
    assert kept.scrub("a s3cr3t/val b") == "a {{secret:key}} b"


@pytest.mark.parametrize(
    "form",
    [
        "pä \"s's<wörd!*~&\\",
        quote("pä \"s's<wörd!*~&\\", safe=""),
        quote("pä \"s's<wörd!*~&\\", safe="!'()*~").lower(),
        quote_plus("pä \"s's<wörd!*~&\\", safe="*").replace("~", "%7E"),
        json.dumps("pä \"s's<wörd!*~&\\")[1:-1],
        json.dumps("pä \"s's<wörd!*~&\\", ensure_ascii=False)[1:-1],
        html.escape("pä \"s's<wörd!*~&\\"),
        base64.b64encode("pä \"s's<wörd!*~&\\".encode()).decode().rstrip("="),
    ],
)
def test_a_secret_is_found_in_whatever_form_it_comes_back(form: str) -> None:
    kept = Vault(secrets_of({"SKYAGENT_SECRET_ODD": "pä \"s's<wörd!*~&\\"}))
    kept.resolve("{{secret:odd}}", PAGE)
    assert kept.scrub(f"a{form}b") == "a{{secret:odd}}b"


@given(st.text(min_size=4, max_size=12), st.text(max_size=20))
def test_what_is_scrubbed_holds_no_secret_and_loses_nothing_else(value: str, other: str) -> None:
    kept = Vault(MappingSecrets({"s": Secret(value)}))
    kept.resolve("{{secret:s}}", PAGE)
    assert kept.scrub(value) == "{{secret:s}}"
    assert value in other or kept.scrub(other) == other or any(escape in other for escape in "%&+\\")


def test_a_bound_secret_goes_only_where_it_is_bound_to() -> None:
    for origin in ("http://a.test", "https://b.test", "http://127.0.0.1:8000"):
        assert vault().resolve("{{secret:bound}}", origin) == "abcd"
    for origin in ("http://c.test", "https://b.test:8443", "http://127.0.0.1:8001", "null"):
        with pytest.raises(Refused, match=r"bound to a\.test, b\.test, 127\.0\.0\.1:8000"):
            vault().resolve("{{secret:bound}}", origin)


def test_every_string_of_a_message_is_scrubbed() -> None:
    kept = vault()
    kept.resolve("{{secret:key}}", PAGE)
    result = pb.BrowserResult(dialog="s3cr3t/val", fields=[pb.FieldReadback(value="s3cr3t/val")])
    result.extracted.form_fields.add(options=["s3cr3t/val"])
    kept.scrub_message(result)
    assert "s3cr3t" not in str(result)
    assert str(result).count("{{secret:key}}") == 3


def test_a_difference_names_what_came_and_what_went() -> None:
    before = ['[f0e1:1] button "A"', "\ttext", '[f0e1:2] textbox "B"', "x", "y", "z", "w", "v"]
    after = ['[f0e1:2] textbox "B" ="1"', "\ttext", "new", "x", "y", "z", "w", "v"]
    assert difference(before, after) == ['+[f0e1:2] textbox "B" ="1"', "+new", "-[f0e1:1]"]


def test_a_difference_of_nearly_everything_is_no_difference() -> None:
    assert difference([f"a{n}" for n in range(20)], [f"b{n}" for n in range(20)]) is None


@given(st.lists(st.text(alphabet="ab", max_size=2)))
def test_nothing_differs_from_itself(lines: list[str]) -> None:
    assert difference(lines, lines) == []


@pytest.mark.parametrize(
    ("effect_class", "dispatched", "effect"),
    [
        (EFFECT_CLASS_READ, True, EFFECT_NONE),
        (EFFECT_CLASS_ONCE, False, EFFECT_NONE),
        (EFFECT_CLASS_ONCE, True, EFFECT_UNKNOWN),
        (EFFECT_CLASS_IDEMPOTENT, True, EFFECT_UNKNOWN),
    ],
)
def test_the_effect_of_a_stop_is_what_is_known(
    effect_class: EffectClass.ValueType, effect: Effect.ValueType, *, dispatched: bool
) -> None:
    assert outcomes.effect_of_stop(effect_class, dispatched=dispatched) == effect


def _batch(*ran: tuple[EffectClass.ValueType, Effect.ValueType]) -> Outcome:
    actions = [Action(effect_class=effect_class) for effect_class, _ in ran]
    return outcomes.batch(actions, [Outcome(status=OUTCOME_STATUS_OK, effect=effect) for _, effect in ran])


def test_a_batch_whose_careful_action_did_not_happen_had_no_effect() -> None:
    assert _batch((EFFECT_CLASS_IDEMPOTENT, EFFECT_DONE), (EFFECT_CLASS_ONCE, EFFECT_NONE)).effect == EFFECT_NONE


def test_a_batch_whose_careful_action_is_unknown_is_unknown() -> None:
    assert _batch((EFFECT_CLASS_ONCE, EFFECT_UNKNOWN), (EFFECT_CLASS_READ, EFFECT_DONE)).effect == EFFECT_UNKNOWN


def test_a_batch_that_did_not_come_to_its_end_failed() -> None:
    actions = [Action(effect_class=EFFECT_CLASS_READ)] * 2
    outcome = outcomes.batch(actions, [Outcome(status=OUTCOME_STATUS_OK, effect=EFFECT_DONE)])
    assert (outcome.status, outcome.reason) == (OUTCOME_STATUS_FAILED, "BROWSER_NAVIGATED")


def test_a_state_is_kept_for_its_owner_alone_and_comes_back(tmp_path: Path) -> None:
    store = SessionStore(tmp_path)
    saved = SavedSession({"cookies": [], "origins": []}, ["http://a/"], 0, 7)
    store.save("RUN", "../up", saved)
    [path] = tmp_path.glob("*/*.json")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.parent == tmp_path / "RUN"
    assert store.load("RUN", "../up") == saved
    store.forget("RUN")
    assert store.load("RUN", "../up") is None


def test_a_state_that_is_damaged_counts_as_none(tmp_path: Path) -> None:
    store = SessionStore(tmp_path)
    store.save("RUN", "main", SavedSession({"cookies": [], "origins": []}))
    next(tmp_path.glob("*/*.json")).write_text("{")
    assert store.load("RUN", "main") is None
