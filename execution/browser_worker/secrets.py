"""Secrets: resolved at the last hop, and scrubbed from everything that leaves."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Final, Protocol
from urllib.parse import quote

from google.protobuf.message import Message

from execution.browser_worker.hosts import HostList
from execution.browser_worker.stops import Refused

_PLACEHOLDER: Final = re.compile(r"\{\{\s*secret:([A-Za-z0-9_.-]{1,64})\s*\}\}")
_VARIABLE: Final = "SKYAGENT_SECRET_"
_HOSTS: Final = "__HOSTS"
#: Shorter values are not scrubbed: they would tear holes into ordinary text.
_MIN_SCRUBBED: Final = 4


@dataclass(frozen=True, slots=True)
class Secret:
    """A value and the hosts into whose pages it may be typed, written as a mission writes hosts; none means any."""

    value: str = field(repr=False)
    hosts: tuple[str, ...] = ()


class SecretSource(Protocol):
    """Where secrets come from."""

    def get(self, name: str) -> Secret | None:
        """The secret of that name."""
        ...


class MappingSecrets:
    """Secrets by name, folded: "{{secret:shop-login}}" is the entry SHOP_LOGIN."""

    def __init__(self, values: Mapping[str, Secret]) -> None:
        self._values = {_folded(name): secret for name, secret in values.items()}

    def get(self, name: str) -> Secret | None:
        return self._values.get(_folded(name))


def secrets_of(environment: Mapping[str, str]) -> MappingSecrets:
    """SKYAGENT_SECRET_<NAME> is a secret; SKYAGENT_SECRET_<NAME>__HOSTS, if set, names the hosts it is bound to."""
    values = {
        name.removeprefix(_VARIABLE): value
        for name, value in environment.items()
        if name.startswith(_VARIABLE) and not name.endswith(_HOSTS)
    }
    return MappingSecrets({name: Secret(value, _hosts_of(environment, name)) for name, value in values.items()})


def _hosts_of(environment: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(environment.get(f"{_VARIABLE}{name}{_HOSTS}", "").replace(",", " ").split())


def _folded(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


class Vault:
    """Resolves placeholders and remembers what it gave out, so that it can be scrubbed."""

    def __init__(self, source: SecretSource) -> None:
        self._source = source
        self._given: dict[str, str] = {}
        self._traces: dict[str, re.Pattern[str]] = {}

    def holds_secret(self, text: str) -> bool:
        """Whether the text names a secret."""
        return _PLACEHOLDER.search(text) is not None

    def resolve(self, text: str, origin: str) -> str:
        """The text with its secrets, for a document of that origin. Raises Refused when unknown or bound elsewhere."""

        def value_of(match: re.Match[str]) -> str:
            name = match[1]
            secret = self._source.get(name)
            if secret is None:
                raise Refused(f"no secret is named {name!r}; set SKYAGENT_SECRET_{_folded(name)} for the worker")
            if secret.hosts and HostList(secret.hosts).refusal(origin):
                raise Refused(
                    f"secret {name!r} is bound to {', '.join(secret.hosts)} and may not be typed into {origin!r}"
                )
            self._remember(name, secret.value)
            return secret.value

        return _PLACEHOLDER.sub(value_of, text)

    def _remember(self, name: str, value: str) -> None:
        if len(value) >= _MIN_SCRUBBED:
            self._given[value] = f"{{{{secret:{name}}}}}"
            self._traces[value] = _traces_of(value)

    @property
    def given_out(self) -> list[str]:
        """Every value that was given out, and how a page may show it, for hiding it in pictures."""
        return sorted({form for value in self._given for form in (value, quote(value, safe=""), _base64(value))})

    def scrub(self, text: str) -> str:
        """The text without any secret that was given out, also as URLs, forms, JSON, HTML or base 64 write it."""
        for value in sorted(self._given, key=len, reverse=True):
            placeholder = self._given[value]
            text = self._traces[value].sub(lambda _, placeholder=placeholder: placeholder, text)
        return text

    def scrub_message(self, message: Message) -> None:
        """Scrubs every string of a message in place."""
        if not self._given:
            return
        for descriptor, value in message.ListFields():
            if descriptor.type == descriptor.TYPE_STRING:
                if descriptor.is_repeated:
                    value[:] = [self.scrub(text) for text in value]
                else:
                    setattr(message, descriptor.name, self.scrub(value))
            elif descriptor.type == descriptor.TYPE_MESSAGE:
                for inner in value if descriptor.is_repeated else (value,):
                    self.scrub_message(inner)


def _traces_of(value: str) -> re.Pattern[str]:
    """Whatever may stand for the value: each of its characters as it is, or escaped as somebody on its way may have."""
    return re.compile("|".join(("".join(map(_ways_to_write, value)), re.escape(_base64(value)))))


def _base64(value: str) -> str:
    return base64.b64encode(value.encode()).decode().rstrip("=")


def _ways_to_write(character: str) -> str:
    in_urls = "".join(f"%{byte:02x}" for byte in character.encode())
    in_json = json.dumps(character)[1:-1]
    in_html = (escape(character), f"&#{ord(character)};", f"&#x{ord(character):x};")
    escaped = {in_urls, in_json, *in_html, "+" if character == " " else in_urls} - {character}
    longest_first = sorted(map(re.escape, escaped), key=len, reverse=True)
    return f"(?:(?i:{'|'.join(longest_first)})|{re.escape(character)})"
