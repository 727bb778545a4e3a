from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.inputs import Resolved, files_needed, host_allowed, host_patterns, validate_inputs
from control.core.templates import parse_template
from control.templates import installed_templates
from infra.digest import digest_of
from infra.errors import InvalidArgument
from skyagent.common.v1.blob_pb2 import BlobRef
from skyagent.mission.v1.mission_pb2 import Input, Limits, MissionSpec

TEMPLATE = installed_templates()["data_entry"]
ROWS = b"Number,Vendor\nA-1,x\nA-2,y\n"


def _spec(files: bytes | None = ROWS, hosts: tuple[str, ...] = (), **inputs: str) -> MissionSpec:
    given = {"site": "http://127.0.0.1:8000/admin/", "form": "/invoices/add/", **inputs}
    spec = MissionSpec(goal="enter them", template="data_entry", allowed_hosts=hosts)
    spec.inputs.extend(Input(name=name, value=value) for name, value in given.items())
    if files is not None:
        spec.files.append(BlobRef(digest=digest_of(files), media_type="text/csv", role="rows"))
    return spec


def _resolve(spec: MissionSpec, data: bytes = ROWS) -> Resolved:
    return validate_inputs(TEMPLATE, spec, {digest_of(data): data})


def _problems(spec: MissionSpec, data: bytes = ROWS) -> dict[str, str]:
    with pytest.raises(InvalidArgument) as caught:
        _resolve(spec, data)
    assert caught.value.reason == "BAD_INPUTS"
    return {violation.field: violation.description for violation in caught.value.violations}


def test_a_mission_resolves_to_absolute_links_defaults_hosts_and_a_budget() -> None:
    found = _resolve(_spec())
    assert found.inputs["form"] == "http://127.0.0.1:8000/invoices/add/"
    assert found.inputs["list"] == "http://127.0.0.1:8000/invoices/"
    assert (found.inputs["key"], found.inputs["submit"], found.inputs["login"]) == ("Number", "Save", "")
    assert found.allowed_hosts == ("127.0.0.1:8000",)
    assert found.max_steps == 2000
    assert found.table is not None
    assert found.table.rows == (("A-1", "x"), ("A-2", "y"))


def test_what_the_mission_says_goes_before_what_is_derived() -> None:
    spec = _spec(list="/invoices/?q={key}", key="number", submit="Sichern", columns="vendor=Supplier")
    spec.limits.CopyFrom(Limits(max_steps=7))
    found = _resolve(spec)
    assert found.inputs["list"] == "http://127.0.0.1:8000/invoices/?q={key}"
    assert (found.inputs["key"], found.inputs["submit"], found.max_steps) == ("Number", "Sichern", 7)


def test_everything_that_is_wrong_is_told_at_once() -> None:
    spec = _spec(site="ftp://x", password="hunter2", username="{{env:USER}}", nonsense="1", key="Nope", columns="=")
    problems = _problems(spec)
    assert set(problems) == {
        f"spec.inputs.{name}" for name in ("site", "password", "username", "nonsense", "key", "columns")
    }
    assert "it takes site, rows, form" in problems["spec.inputs.nonsense"]
    assert "{{secret:name}}" in problems["spec.inputs.password"]


def test_a_literal_password_is_refused_and_never_repeated_in_the_error() -> None:
    assert "hunter2" not in str(_problems(_spec(password="hunter2")))


@pytest.mark.parametrize("password", ["{{secret:x}", "{{secret: x}}", "{{secret:x}} ", "{{env:X}}"])
def test_a_secret_is_given_by_its_name_alone(password: str) -> None:
    assert "give a secret by name" in _problems(_spec(password=password))["spec.inputs.password"]


def test_a_text_may_hold_secrets_and_nothing_else_in_double_braces() -> None:
    assert _resolve(_spec(username="ann.{{secret:user}}")).inputs["username"] == "ann.{{secret:user}}"
    assert "double braces" in _problems(_spec(username="{{secret:user}}{{env:X}}"))["spec.inputs.username"]


def test_missing_inputs_are_named_with_what_they_are_for() -> None:
    spec = MissionSpec(goal="x", template="data_entry")
    problems = _problems(spec)
    assert {"spec.inputs.site", "spec.inputs.rows", "spec.inputs.form"} <= set(problems)
    assert "role 'rows'" in problems["spec.inputs.rows"]


@pytest.mark.parametrize("goal", ["", "  \n"])
def test_a_goal_says_something(goal: str) -> None:
    spec = _spec()
    spec.goal = goal
    assert "spec.goal" in _problems(spec)


def test_a_site_off_the_allowlist_is_refused_with_the_fix() -> None:
    problems = _problems(_spec(hosts=("ledger.example",)))
    assert "add it to allowed_hosts" in problems["spec.inputs.site"]


def test_a_link_to_a_host_that_may_not_be_reached_is_refused() -> None:
    assert "'other.example'" in _problems(_spec(form="https://other.example/add/"))["spec.inputs.form"]
    assert _resolve(_spec(form="https://o.example/add/", hosts=("o.example", "127.0.0.1:8000"))).allowed_hosts


@pytest.mark.parametrize("link", ["//evil.example/add/", "javascript:alert(1)", "file:///etc/passwd", "http://a@b/"])
def test_a_link_that_is_no_page_of_the_site_is_refused(link: str) -> None:
    assert "is no path on the site" in _problems(_spec(form=link))["spec.inputs.form"]


def test_hosts_that_are_none_are_named_by_their_place() -> None:
    problems = _problems(_spec(hosts=("127.0.0.1:8000", "http://x/", "*", "a.*.b", "x:0", "a" * 64, "ab..c")))
    assert set(problems) == {f"spec.allowed_hosts[{index}]" for index in (1, 2, 3, 4, 5, 6)}


def test_a_list_page_that_cannot_be_told_must_be_given() -> None:
    assert "cannot be told" in _problems(_spec(form="/records/edit"))["spec.inputs.list"]


@pytest.mark.parametrize("form", ["/records/add", "/records/add/", "/records/NEW", "/records/create/?next=1"])
def test_the_list_page_is_the_one_above_the_page_that_adds(form: str) -> None:
    assert _resolve(_spec(form=form)).inputs["list"] == "http://127.0.0.1:8000/records/"


def test_a_mapping_names_columns_that_the_table_has() -> None:
    problem = _problems(_spec(columns="vendor=Supplier; Total=Amount"))["spec.inputs.columns"]
    assert problem == "the table has no column 'Total'; it has Number, Vendor"


def test_a_table_may_be_written_inline() -> None:
    assert _resolve(_spec(files=None, rows="Id\n1\n")).inputs["key"] == "Id"


def test_the_name_of_a_file_that_is_not_there_is_told_as_such() -> None:
    problem = _problems(_spec(files=None, rows="build/invoises.csv"), b"")["spec.inputs.rows"]
    assert "there is no file 'build/invoises.csv'" in problem


def test_a_table_that_is_wrong_is_told_under_its_input() -> None:
    data = b"A,B\n1\n"
    assert "line 2 has 1 cells" in _problems(_spec(files=data), data)["spec.inputs.rows"]


def test_a_key_that_names_two_rows_alike_is_refused() -> None:
    data = b"Number,Vendor\nA-1,x\nA-1,y\n"
    assert "lines 2 and 3" in _problems(_spec(files=data), data)["spec.inputs.key"]


def test_a_lone_file_is_for_the_lone_table_whatever_its_role() -> None:
    spec = _spec()
    spec.files[0].role = ""
    assert list(files_needed(TEMPLATE, spec)) == ["rows"]
    spec.files.append(BlobRef(digest=digest_of(b"x")))
    assert not files_needed(TEMPLATE, spec)


@pytest.mark.parametrize("steps", ["0", "-3", "2.5", "1e3", "10001", "9" * 5000, "٣"])
def test_a_whole_number_with_bounds_takes_nothing_else(steps: str) -> None:
    spec = MissionSpec(goal="try", template="self_test", inputs=[Input(name="steps", value=steps)])
    with pytest.raises(InvalidArgument, match="is no whole number from 1 to 10,000"):
        validate_inputs(installed_templates()["self_test"], spec, {})


def test_a_whole_number_within_its_bounds_is_taken() -> None:
    spec = MissionSpec(goal="try", template="self_test", inputs=[Input(name="steps", value="10000")])
    assert validate_inputs(installed_templates()["self_test"], spec, {}).inputs["steps"] == "10000"


FREE = parse_template(
    """
name: free
version: 1
summary: Takes what the others do not.
runtime: browser
phases: [nothing]
example: none
inputs:
  - {name: factor, type: number, description: A factor.}
  - {name: colour, type: choice, choices: [red, blue], default: red, description: A colour.}
""",
    "free.yaml",
)


def _free(**inputs: str) -> Resolved:
    spec = MissionSpec(goal="try", inputs=[Input(name=name, value=value) for name, value in inputs.items()])
    return validate_inputs(FREE, spec, {})


@pytest.mark.parametrize("factor", ["x", "Infinity", "NaN", "1,5"])
def test_a_number_is_decimal_and_finite(factor: str) -> None:
    assert _free(factor="-12.50").inputs["factor"] == "-12.50"
    with pytest.raises(InvalidArgument, match="is no decimal number"):
        _free(factor=factor)


def test_a_choice_is_one_of_those_there_are() -> None:
    assert [_free().inputs["colour"], _free(colour="blue").inputs["colour"]] == ["red", "blue"]
    with pytest.raises(InvalidArgument, match="'green' is none of red, blue"):
        _free(colour="green")


def test_without_a_table_the_budget_is_that_of_one_record() -> None:
    assert _free().max_steps == 1000


def test_the_wildcards_of_a_host_are_those_above_its_name_and_an_address_has_none() -> None:
    assert host_patterns("a.b.c:80") == ("a.b.c:80", "*.b.c:80", "*.c:80")
    for alone in ("127.0.0.1:8000", "[::ffff:1.2.3.4]:80", "[::1]"):
        assert host_patterns(alone) == (alone,)
    assert host_patterns("") == ()


def test_an_input_given_twice_is_refused() -> None:
    spec = _spec()
    spec.inputs.append(Input(name="form", value="/x/add/"))
    assert "given twice" in _problems(spec)["spec.inputs.form"]


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("a.example", "a.example"),
        ("a.example", "*.example"),
        ("x.a.example", "*.a.example"),
        ("x.example:8080", "*.example:8080"),
    ],
)
def test_an_allowlist_matches_the_host_and_wildcards_above_it(host: str, allowed: str) -> None:
    assert host_allowed(host, (allowed,))


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("a.example", "*.a.example"),
        ("evila.example", "a.example"),
        ("a.example:8080", "a.example"),
        ("127.0.0.1", "*.0.0.1"),
        ("", ""),
    ],
)
def test_an_allowlist_matches_whole_labels_and_ports_only(host: str, allowed: str) -> None:
    assert not host_allowed(host, (allowed,))


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_input_breaks_the_check(site: str, form: str) -> None:
    with suppress(InvalidArgument):
        assert _resolve(_spec(site=site, form=form, list=form)).allowed_hosts


def test_an_application_that_cannot_be_asked_needs_no_list_once_that_is_said() -> None:
    assert "say proof=none" in _problems(_spec(form="/pay/"))["spec.inputs.list"]
    found = _resolve(_spec(form="/pay/", proof="none"))
    assert (found.inputs["list"], found.inputs["proof"]) == ("", "none")


def test_without_proof_no_list_is_derived_nor_taken() -> None:
    assert _resolve(_spec(proof="none")).inputs["list"] == ""
    assert "with proof=none" in _problems(_spec(proof="none", list="/invoices/"))["spec.inputs.list"]
    assert "listed, none" in _problems(_spec(proof="some"))["spec.inputs.proof"]
