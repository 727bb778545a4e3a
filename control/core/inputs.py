"""What a mission gives to its template, checked whole, so that a person mends everything at once. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

from control.core.facts import host_of
from control.core.matching import parse_mapping
from control.core.tables import Table, parse_table, unique_key
from control.core.templates import Template, TemplateInput
from control.core.values import fold
from infra.errors import InvalidArgument, Violation
from skyagent.common.v1.blob_pb2 import BlobRef
from skyagent.mission.v1.mission_pb2 import MissionSpec

_SECRET = re.compile(r"\{\{secret:[A-Za-z0-9_.-]{1,64}\}\}")
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(\*\.)?({_LABEL}(\.{_LABEL})*|\[[0-9a-f:.]+\])(:[1-9][0-9]{{0,4}})?")
_ADDING = frozenset({"add", "new", "create"})
_STEPS_PER_RECORD = 1000


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a plan is made from. Links are absolute; inputs that were not given have their default, or "" ."""

    inputs: Mapping[str, str]
    tables: Mapping[str, Table]
    allowed_hosts: tuple[str, ...]
    max_steps: int

    @property
    def table(self) -> Table | None:
        """The table of the mission, when its template takes one."""
        return next(iter(self.tables.values()), None)


def files_needed(template: Template, spec: MissionSpec) -> Mapping[str, BlobRef]:
    """The files that validate_inputs wants to see, by the input that each is for.

    A file is for the table input that its role names; a lone file is for the lone table input.
    """
    given = {one.name for one in spec.inputs if one.value}
    tables = [one.name for one in template.inputs if one.type == "table" and one.name not in given]
    by_role = {file.role: file for file in spec.files if file.role in tables}
    if not by_role and len(tables) == 1 and len(spec.files) == 1:
        return {tables[0]: spec.files[0]}
    return by_role


def validate_inputs(template: Template, spec: MissionSpec, files: Mapping[str, bytes]) -> Resolved:
    """Check all that a mission gives; `files` are the bytes of files_needed, by digest.

    Raises:
        InvalidArgument: with one violation for each problem (reason BAD_INPUTS).
    """
    check = _Check(template, spec, files)
    resolved = check.all()
    if check.violations:
        raise InvalidArgument(*check.violations, reason="BAD_INPUTS")
    return resolved


def host_allowed(host: str, allowed: tuple[str, ...]) -> bool:
    """Whether a host, with its port unless that is implied, is in an allowlist; "*.a.b" matches names below a.b."""
    return bool(host) and any(pattern in allowed for pattern in host_patterns(host))


def host_patterns(host: str) -> tuple[str, ...]:
    """The host itself and every wildcard that matches it: for "a.b.c" also "*.b.c" and "*.c". "" has none."""
    name = host.partition(":")[0]
    is_address = host.startswith("[") or name.replace(".", "").isdigit()
    labels = [] if is_address else host.split(".")
    return tuple(filter(None, (host, *(f"*.{'.'.join(labels[index:])}" for index in range(1, len(labels))))))


_T = TypeVar("_T")


class _Check:
    def __init__(self, template: Template, spec: MissionSpec, files: Mapping[str, bytes]) -> None:
        self._template = template
        self._spec = spec
        self._files = files
        self._values: dict[str, str] = {}
        self._tables: dict[str, Table] = {}
        self.violations: list[Violation] = []

    def all(self) -> Resolved:
        if not self._spec.goal.strip():
            self._wrong("spec.goal", "say what should be true afterwards")
        self._collect()
        hosts = self._hosts()
        for declared in self._template.inputs:
            if declared.type == "table":
                self._read_table(declared)
        for declared in self._template.inputs:
            if declared.type != "table":
                self._one(declared, hosts)
        rows = max((len(table.rows) for table in self._tables.values()), default=1)
        return Resolved(
            MappingProxyType(self._values),
            MappingProxyType(self._tables),
            hosts,
            self._spec.limits.max_steps or _STEPS_PER_RECORD * rows,
        )

    def _wrong(self, field: str, description: str) -> None:
        self.violations.append(Violation(field, description))

    def _collect(self) -> None:
        declared = {one.name: one for one in self._template.inputs}
        for given in self._spec.inputs:
            if given.name not in declared:
                names = ", ".join(declared)
                self._wrong(_path(given.name), f"{self._template.name} has no such input; it takes {names}")
            elif given.name in self._values:
                self._wrong(_path(given.name), "it is given twice: give it once")
            else:
                self._values[given.name] = given.value
        for name, one in declared.items():
            self._values[name] = self._values.get(name) or one.default
            if one.required and one.type != "table" and not self._values[name].strip():
                self._wrong(_path(name), f"it is missing: {one.description}")

    def _hosts(self) -> tuple[str, ...]:
        """The allowlist in canonical form; without one, the host of the site alone."""
        hosts = tuple(host.lower() for host in self._spec.allowed_hosts)
        for index, host in enumerate(hosts):
            if not _HOST.fullmatch(host):
                problem = f'{host!r} is no host: write it like "shop.example", "127.0.0.1:8000" or "*.shop.example"'
                self._wrong(f"spec.allowed_hosts[{index}]", problem)
        own = host_of(self._values.get("site", ""))
        return hosts or ((own,) if own else ())

    def _read_table(self, declared: TemplateInput) -> None:
        name = declared.name
        inline, file = self._values.pop(name), files_needed(self._template, self._spec).get(name)
        if not inline and file is None:
            if declared.required:
                how = f"give a file with role {name!r} (`--input {name}=FILE`)"
                self._wrong(_path(name), f"it is missing: {declared.description.rstrip('.')}; {how}")
            return
        if file is None and _is_a_name(inline):
            problem = f"there is no file {inline!r} here, and as a table it has no rows: give a file that exists"
            self._wrong(_path(name), problem)
            return
        data = inline.encode() if file is None else self._files[file.digest]
        table = self._attempt(lambda: parse_table(data, field=_path(name)))
        if table:
            self._tables[name] = table

    def _one(self, declared: TemplateInput, hosts: tuple[str, ...]) -> None:
        value, without = self._values[declared.name], declared.left_out_with
        if without and self._values[without.input] == without.value:
            if value:
                choice = f"{without.input}={without.value}"
                self._wrong(
                    _path(declared.name), f"with {choice} there is nothing that it is for: leave out one of them"
                )
            return
        if declared.list_of and not value:
            value = self._values[declared.name] = self._list_page(declared)
        if declared.column_of:
            self._column(declared, value)
        elif declared.mapping_of:
            self._mapping(declared, value)
        elif value:
            for problem in self._problems(declared, value, hosts):
                self._wrong(_path(declared.name), problem)

    def _problems(self, declared: TemplateInput, value: str, hosts: tuple[str, ...]) -> Iterator[str]:
        if "{{" in value and not _only_secrets(value):
            yield "only {{secret:name}} may stand in double braces"
        match declared.type:
            case "url" if not host_of(value):
                yield f'{value!r} is no http(s) address: write it like "https://shop.example/"'
            case "url" if not host_allowed(host_of(value), hosts):
                yield _not_allowed(host_of(value))
            case "link":
                yield from self._link(declared.name, value, hosts)
            case "secret" if not _SECRET.fullmatch(value):
                yield "give a secret by name, as {{secret:name}}: what is written here would be kept in the journal"
            case "number" if declared.least is not None and declared.most is not None:
                if not (value.isascii() and value.isdecimal() and declared.least <= int(value[:20]) <= declared.most):
                    yield f"{value!r} is no whole number from {declared.least:,} to {declared.most:,}"
            case "number" if not _is_number(value):
                yield f'{value!r} is no decimal number: write it like "12.50"'
            case "choice" if value not in declared.choices:
                yield f"{value!r} is none of {', '.join(declared.choices)}"
            case _:
                return

    def _link(self, name: str, value: str, hosts: tuple[str, ...]) -> Iterator[str]:
        absolute = urljoin(self._values.get("site", ""), value)
        if value.startswith("//") or ("site" in self._values and not host_of(absolute)):
            if host_of(self._values.get("site", "")):  # a site that is wrong is told of already
                yield f'{value!r} is no path on the site and no http(s) address: write it like "/records/add/"'
            return
        self._values[name] = absolute
        if not host_allowed(host_of(absolute), hosts) and host_of(absolute) != host_of(self._values.get("site", "")):
            yield _not_allowed(host_of(absolute))

    def _list_page(self, declared: TemplateInput) -> str:
        link = self._values.get(declared.list_of, "")
        segments = [segment for segment in urlsplit(link).path.split("/") if segment]
        if segments and segments[-1].lower() in _ADDING:
            return urljoin(link if link.endswith("/") else f"{link}/", "..")
        if link:
            problem = f"it cannot be told from {link!r}, so give it: {declared.description.rstrip('.')}"
            choice = declared.left_out_with
            other = f"; where there is no such page, say {choice.input}={choice.value}" if choice else ""
            self._wrong(_path(declared.name), f"{problem}{other}")
        return ""

    def _column(self, declared: TemplateInput, value: str) -> None:
        table = self._tables.get(declared.column_of)
        if table is None:
            return
        named = next((column for column in table.columns if fold(column) == fold(value)), value) or table.columns[0]
        self._values[declared.name] = named
        self._attempt(lambda: unique_key(table, named, field=_path(declared.name)))

    def _mapping(self, declared: TemplateInput, value: str) -> None:
        table = self._tables.get(declared.mapping_of)
        mapping = self._attempt(lambda: parse_mapping(value, field=_path(declared.name))) or {}
        columns = {fold(column) for column in table.columns} if table else set[str]()
        for column in mapping:
            if table and fold(column) not in columns:
                problem = f"the table has no column {column!r}; it has {', '.join(table.columns)}"
                self._wrong(_path(declared.name), problem)

    def _attempt(self, read: Callable[[], _T]) -> _T | None:
        try:
            return read()
        except InvalidArgument as error:
            self.violations += error.violations
            return None


def _is_a_name(inline: str) -> bool:
    """Whether what stands in a table's place is rather the path of a file: one line that is not JSON."""
    return len(inline.splitlines()) == 1 and not inline.lstrip().startswith(("[", "{"))


def _path(name: str) -> str:
    return f"spec.inputs.{name}"


def _only_secrets(value: str) -> bool:
    return "{{" not in _SECRET.sub("", value)


def _not_allowed(host: str) -> str:
    fix = "add it to allowed_hosts (`--allow-host`), or leave them empty"
    return f"{host!r} is not among the hosts that the mission may reach: {fix}"


def _is_number(value: str) -> bool:
    try:
        return Decimal(value).is_finite()
    except InvalidOperation:
        return False
