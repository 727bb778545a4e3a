import pytest

from control.core.phases import PHASES
from control.core.templates import parse_template, template_named
from control.templates import installed_templates
from infra.errors import InvalidArgument
from skyagent.mission.v1 import template_pb2 as pb

GOOD = """
name: visit
version: 1
summary: Look at a page.
runtime: browser
phases: [look]
example: skyagent run --template visit
inputs:
  - {name: site, type: url, required: true, description: Where.}
"""


def _problem(text: str) -> str:
    with pytest.raises(InvalidArgument) as caught:
        parse_template(text, "visit.yaml")
    assert caught.value.reason == "BAD_TEMPLATE"
    return str(caught.value)


def test_every_installed_template_is_sound_and_shown_to_clients() -> None:
    templates = installed_templates()
    assert list(templates) == ["data_entry", "login_flow", "self_test"]
    contract = templates["data_entry"].contract()
    assert [given.name for given in contract.inputs if given.required] == ["site", "rows", "form"]
    assert contract.inputs[1].type == pb.INPUT_TYPE_TABLE
    assert {given.name: given.default_value for given in contract.inputs}["submit"] == "Save"


@pytest.mark.parametrize("kind", ["text", "url", "link", "table", "secret", "number", "choice"])
def test_clients_see_an_input_as_the_template_declares_it(kind: str) -> None:
    choices = ", choices: [a, b], default: b, required: false" if kind == "choice" else ", required: true"
    text = GOOD.replace("type: url, required: true", f"type: {kind}{choices}")
    [shown] = parse_template(text, "visit.yaml").contract().inputs
    assert shown.type == pb.InputType.Value(f"INPUT_TYPE_{kind.upper()}")
    assert (list(shown.choices), shown.default_value) == ((["a", "b"], "b") if kind == "choice" else ([], ""))
    assert (shown.name, shown.description, shown.required) == ("site", "Where.", kind != "choice")


def test_every_phase_of_an_installed_template_is_one_that_can_be_planned() -> None:
    for template in installed_templates().values():
        assert set(template.phases) <= set(PHASES), template.name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "no valid YAML"),
        ("- 1", "visit.yaml"),
        (GOOD.replace("version: 1", "version: 0"), "visit.yaml.version"),
        (GOOD.replace("version: 1", "version: '1'"), "visit.yaml.version"),
        (GOOD.replace("runtime: browser", "runtime: phone"), "visit.yaml.runtime"),
        (GOOD.replace("name: visit", "name: visit!"), "visit.yaml.name"),
        (GOOD.replace("name: site", "name: site!"), "visit.yaml.inputs.0.name"),
        (GOOD + "surprise: 1", "visit.yaml.surprise"),
        (GOOD.replace("url", "uri"), "visit.yaml.inputs.0.type"),
        (GOOD.replace("type: url", "type: choice"), "`choices` belong"),
        (
            GOOD.replace("type: url", "type: choice, choices: [a], default: b").replace("true", "false"),
            "none of the ch",
        ),
        (GOOD.replace("required: true", "required: true, default: x"), "do not call it required"),
        (GOOD.replace("required: true", "least: 1, most: 2"), "`least` and `most` belong together"),
        (GOOD.replace("type: url", "type: number, least: 1"), "`least` and `most` belong together"),
        (GOOD.replace("required: true", "column_of: rows"), "is about 'rows', which is no input"),
        (GOOD + "  - {name: site, type: text, description: Again.}", "two inputs are called 'site'"),
        ("!!python/object/apply:os.system ['true']", "no valid YAML"),
    ],
)
def test_a_template_that_is_not_sound_is_refused_where_it_is_wrong(text: str, said: str) -> None:
    assert said in _problem(text)


def test_a_template_is_found_by_its_name() -> None:
    assert template_named(installed_templates(), "self_test").name == "self_test"


def test_an_unknown_template_is_answered_by_the_list_of_known_ones() -> None:
    with pytest.raises(InvalidArgument, match="choose one of data_entry, login_flow"):
        template_named(installed_templates(), "data_entri")
