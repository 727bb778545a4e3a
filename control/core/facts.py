"""What policies may look at, derived from an action by code alone: no caller and no model is asked. Pure.

A field is taken for money when its label or name says amount, total, price, sum, cost, net or gross (in a few
languages), and its largest possible reading counts: of "1.234" that is 1234. Whoever wants to slip past a limit must
then find words that neither the page nor the mission uses for money.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import ROUND_CEILING, Decimal
from typing import cast
from urllib.parse import SplitResult, urlsplit

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from control.core.naming import meaning, tokens
from control.core.values import largest_number
from infra.errors import InvalidArgument, Violation
from skyagent.execution.v1.action_pb2 import Action
from skyagent.execution.v1.browser_pb2 import BrowserAction, FieldValue, Target
from skyagent.execution.v1.desktop_pb2 import DesktopAction
from skyagent.execution.v1.facts_pb2 import Facts
from skyagent.execution.v1.workspace_pb2 import WorkspaceAction

_SECRET = re.compile(r"\{\{\s*secret:([^{}\s]*)\s*\}\}")
_MONEY_WORDS = frozenset({"amount", "preis", "kosten", "prix", "montant", "importe", "kwota", "brutto", "netto"})
_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_CENTS = 2**63 - 1
_MAX_DEPTH = 8

_BROWSER_INTENTS = {
    "click": "interact", "type": "fill", "fill": "fill", "fill_form": "fill", "select": "fill", "check": "fill",
    "press_key": "interact", "drag": "interact", "handle_dialog": "interact", "upload": "upload",
    "download": "download",
}  # fmt: skip
_DESKTOP_INTENTS = {"launch": "launch", "type": "fill", "observe": "view", "settle": "view", "scroll": "view"}
_WORKSPACE_INTENTS = {"exec": "exec", "read_file": "read", "write_file": "write", "list_files": "read"}
_SENDING_KEYS = frozenset({"enter", "numpadenter"})


def facts_of(action: Action) -> Facts:
    """The facts of one action; of a batch, the gravest of its actions' facts together."""
    facts = _facts(action)
    facts.secrets.extend(sorted(set(_secrets(action))))
    if facts.secrets and (facts.intent == "fill" or action.browser.HasField("type")):
        facts.intent = "login"
    return facts


def action_name(action: Action) -> str:
    """Its name in policies: "browser.fill_form", "workspace.exec", "tool.call", "noop"; of a batch, "batch"."""
    kind = action.WhichOneof("kind")
    match kind:
        case "browser" | "desktop" | "workspace":
            return f"{kind}.{getattr(action, kind).WhichOneof('action') or 'nothing'}"
        case "tool":
            return "tool.call"
        case _:
            return kind or "nothing"


def single_actions(action: Action) -> Iterator[Action]:
    """The action itself, or those of a batch in order. Raises InvalidArgument when batches are nested too deep."""
    yield from _singles(action, _MAX_DEPTH)


def host_of(address: str) -> str:
    """Host of an http(s) address in lower case and ASCII, with the port when it is not the scheme's own; else ""."""
    parts = _split(address)
    return _host(parts) if parts and parts.scheme.lower() in _DEFAULT_PORTS else ""


def _singles(action: Action, depth: int) -> Iterator[Action]:
    if action.WhichOneof("kind") != "batch":
        yield action
        return
    if depth == 0:
        raise InvalidArgument(
            Violation("action.batch", f"batches are nested more than {_MAX_DEPTH} deep: flatten them")
        )
    for inner in action.batch.actions:
        yield from _singles(inner, depth - 1)


def _facts(action: Action) -> Facts:
    match action.WhichOneof("kind"):
        case "browser":
            return _browser(action.browser)
        case "desktop":
            return _desktop(action.desktop)
        case "workspace":
            return _workspace(action.workspace)
        case "tool":
            return Facts(intent="call", program=action.tool.tool, sends_data=True)
        case "batch":
            return _together([facts_of(inner) for inner in single_actions(action)])
        case _:
            return Facts(intent="none")


def _together(parts: Iterable[Facts]) -> Facts:
    merged = Facts(intent="batch")
    for part in parts:
        merged.host = merged.host or part.host
        merged.scheme = merged.scheme or part.scheme
        merged.path = merged.path or part.path
        merged.program = merged.program or part.program
        merged.sends_data = merged.sends_data or part.sends_data
        if part.HasField("amount_cents"):
            merged.amount_cents = max(part.amount_cents, merged.amount_cents)
    return merged


def _browser(browser: BrowserAction) -> Facts:
    name = browser.WhichOneof("action") or ""
    match name:
        case "navigate":
            return _visit(browser.navigate.url)
        case "extract" if browser.extract.url:
            return _visit(browser.extract.url)
        case "tabs" if browser.tabs.url:
            return _visit(browser.tabs.url)
        case "click" if browser.click.expect:
            return _submission(browser.click.expect)
        case "type" if browser.type.submit:
            return _submission([FieldValue(target=browser.type.target, value=browser.type.text)])
        case "press_key" if browser.press_key.key.split("+")[-1].casefold() in _SENDING_KEYS:
            return Facts(intent="submit", sends_data=True)
        case _:
            return Facts(intent=_BROWSER_INTENTS.get(name, "view"), sends_data=name == "upload")


def _visit(address: str) -> Facts:
    parts = _split(address)
    if parts is None:
        return Facts(intent="view", scheme="invalid", sends_data=True)
    return Facts(host=_host(parts), scheme=parts.scheme.lower(), intent="view", sends_data=bool(parts.query))


def _split(address: str) -> SplitResult | None:
    # What Chromium strips or reads as a slash must not hide a host from this parser (WHATWG URL, basic parser).
    if address != address.strip() or re.search(r"[\x00-\x20\\\x7f]", address):
        return None
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return None
    plain = host and parts.username is None and parts.password is None
    return parts if plain or parts.scheme.lower() not in _DEFAULT_PORTS else None


def _host(parts: SplitResult) -> str:
    host = (parts.hostname or "").rstrip(".")
    try:
        ascii_host = host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        return "invalid"
    name = f"[{ascii_host}]" if ":" in ascii_host else ascii_host
    port = parts.port
    return f"{name}:{port}" if port is not None and port != _DEFAULT_PORTS.get(parts.scheme.lower()) else name


def _submission(fields: Iterable[FieldValue]) -> Facts:
    facts = Facts(intent="submit", sends_data=True)
    amounts = [number for field in fields if _is_money(field) and (number := largest_number(field.value)) is not None]
    if amounts:
        facts.amount_cents = _cents(max(amounts))
    return facts


def _cents(amount: Decimal) -> int:
    # Beyond the range every limit is passed anyway; computing 1E+99 as an integer is not wanted.
    return _MAX_CENTS if amount >= 10**16 else int((amount * 100).to_integral_value(ROUND_CEILING))


def _is_money(field: FieldValue) -> bool:
    locator = field.target.locator if field.target.WhichOneof("by") == "locator" else Target().locator
    names = (field.label, locator.name, locator.field, locator.css)
    return any(word in _MONEY_WORDS for name in names for word in (*meaning(name), *tokens(name)))


def _desktop(desktop: DesktopAction) -> Facts:
    name = desktop.WhichOneof("action") or ""
    program = desktop.launch.argv[0] if name == "launch" and desktop.launch.argv else ""
    return Facts(intent=_DESKTOP_INTENTS.get(name, "interact"), program=program)


def _workspace(workspace: WorkspaceAction) -> Facts:
    name = workspace.WhichOneof("action") or ""
    facts = Facts(intent=_WORKSPACE_INTENTS.get(name, "remove"))
    match name:
        case "exec":
            facts.program = workspace.exec.argv[0] if workspace.exec.argv else ""
            facts.path, facts.sends_data = workspace.exec.directory, workspace.exec.network
        case "read_file":
            facts.path = workspace.read_file.path
        case "write_file":
            facts.path = workspace.write_file.path
        case "list_files":
            facts.path = workspace.list_files.path
        case _:
            facts.path = workspace.remove_file.path
    return facts


def _secrets(message: Message) -> Iterator[str]:
    """Names in {{secret:name}} anywhere in the message, in whatever field; an odd form counts too."""
    for field, value in message.ListFields():
        for item in _items(field, cast("object", value)):
            if isinstance(item, Message):
                yield from _secrets(item)
            elif isinstance(item, bytes):
                yield from _SECRET.findall(item.decode("latin-1"))
            elif isinstance(item, str):
                yield from _SECRET.findall(item)


def _items(field: FieldDescriptor, value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        mapping = cast("Mapping[object, object]", value)
        return (*mapping.keys(), *mapping.values())
    return cast("Iterable[object]", value) if field.is_repeated else (value,)
