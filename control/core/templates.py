"""Templates: missions as data. read from YAML, checked, and shown to clients. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from infra.errors import InvalidArgument, Violation
from skyagent.mission.v1 import template_pb2 as pb

_TYPES: Mapping[str, pb.InputType.ValueType] = MappingProxyType(
    {
        "text": pb.INPUT_TYPE_TEXT,
        "url": pb.INPUT_TYPE_URL,
        "link": pb.INPUT_TYPE_LINK,
        "table": pb.INPUT_TYPE_TABLE,
        "secret": pb.INPUT_TYPE_SECRET,
        "number": pb.INPUT_TYPE_NUMBER,
        "choice": pb.INPUT_TYPE_CHOICE,
    }
)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Choice(_Part):
    """One value of an input of the type choice."""

    input: str
    value: str


class TemplateInput(_Part):
    """A value that a mission gives; what it must be is checked before a run begins."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")
    type: Literal["text", "url", "link", "table", "secret", "number", "choice"]
    description: str = Field(min_length=1)
    required: bool = False
    default: str = ""
    choices: list[str] = []
    column_of: str = ""
    """Names a column of that table which tells its rows apart; the first column when it is not given."""
    mapping_of: str = ""
    """Says "column=form label; …" about the columns of that table."""
    least: int | None = None
    """With `most`: only whole numbers from the one to the other."""
    most: int | None = None
    list_of: str = ""
    """When it is not given: the page above that link, if the link ends like a page that adds a record."""
    left_out_with: Choice | None = None
    """The choice that makes this input meaningless: then it may not be given."""

    @model_validator(mode="after")
    def _sound(self) -> TemplateInput:
        if (self.type == "choice") != bool(self.choices):
            raise ValueError("`choices` belong to the type choice, and it needs some")
        if self.default and self.choices and self.default not in self.choices:
            raise ValueError(f"the default {self.default!r} is none of the choices")
        if (self.least is None) != (self.most is None) or (self.least is not None and self.type != "number"):
            raise ValueError("`least` and `most` belong together, and to the type number")
        if self.required and self.default:
            raise ValueError("an input with a default is never missing: do not call it required")
        return self

    def contract(self) -> pb.TemplateInput:
        """As clients see it."""
        return pb.TemplateInput(
            name=self.name,
            type=_TYPES[self.type],
            required=self.required,
            description=self.description,
            default_value=self.default,
            choices=self.choices,
        )


class Template(_Part):
    """A mission that needs no model. Its planner works through `phases`; `plan` is the planner's own to read."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")
    version: int = Field(gt=0)
    summary: str = Field(min_length=1, max_length=200)
    runtime: Literal["browser", "desktop", "workspace"]
    inputs: list[TemplateInput]
    phases: list[str] = Field(min_length=1)
    example: str = Field(min_length=1)
    plan: dict[str, JsonValue] = {}

    @model_validator(mode="after")
    def _sound(self) -> Template:
        names = [given.name for given in self.inputs]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(f"two inputs are called {twice!r}")
        for given in self.inputs:
            for about in filter(None, (given.column_of, given.mapping_of, given.list_of)):
                if about not in names:
                    raise ValueError(f"input {given.name!r} is about {about!r}, which is no input")
            choice = given.left_out_with
            if choice and not any(one.name == choice.input and choice.value in one.choices for one in self.inputs):
                raise ValueError(f"input {given.name!r} is left out with {choice.input}={choice.value}: no such choice")
        return self

    def contract(self) -> pb.Template:
        """As clients see it."""
        return pb.Template(
            name=self.name,
            version=self.version,
            summary=self.summary,
            runtime=self.runtime,
            inputs=[given.contract() for given in self.inputs],
            phases=self.phases,
            example=self.example,
        )


def parse_template(text: str, source: str) -> Template:
    """Read a template from YAML; `source` names it in errors. Raises InvalidArgument (reason BAD_TEMPLATE)."""
    try:
        document: object = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidArgument(Violation(source, f"this is no valid YAML: {error}"), reason="BAD_TEMPLATE") from error
    try:
        return Template.model_validate(document)
    except ValidationError as error:
        violations = (
            Violation(".".join([source, *(str(part) for part in wrong["loc"])]), wrong["msg"])
            for wrong in error.errors()
        )
        raise InvalidArgument(*violations, reason="BAD_TEMPLATE") from error


def template_named(templates: Mapping[str, Template], name: str) -> Template:
    """The template, or InvalidArgument that lists what there is."""
    template = templates.get(name)
    if template is None:
        said = f"there is no template {name!r}" if name else "no template is named, and no model planner is installed"
        problem = f"{said}; choose one of {', '.join(sorted(templates))}"
        raise InvalidArgument(Violation("spec.template", problem), reason="UNKNOWN_TEMPLATE")
    return template
