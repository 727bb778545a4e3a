"""The templates that come with the product, as data."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType

from control.core.templates import Template, parse_template
from infra.errors import Internal


def installed_templates() -> Mapping[str, Template]:
    """Every template of this folder by name, in the order of names.

    Raises:
        InvalidArgument: when one of them is not sound; the process must not start with it.
    """
    found: dict[str, Template] = {}
    for file in sorted(files(__name__).iterdir(), key=lambda file: file.name):
        if not file.name.endswith(".yaml"):
            continue
        template = parse_template(file.read_text(encoding="utf-8"), file.name)
        if file.name != f"{template.name}.yaml":
            raise Internal("MISNAMED_TEMPLATE", f"{file.name} holds the template {template.name!r}: rename one of them")
        found[template.name] = template
    return MappingProxyType(found)
