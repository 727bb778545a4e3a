"""How an action ends other than as asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from skyagent.execution.v1 import browser_pb2 as pb
from skyagent.execution.v1.effect_pb2 import Effect

_PREFIX: Final = "BROWSER_STATUS_"


@dataclass(eq=False)
class Stopped(Exception):
    """The action ended with this status. With no effect given, it is judged by whether the page had been touched."""

    status: pb.BrowserStatus.ValueType
    message: str
    effect: Effect.ValueType | None = None

    def __str__(self) -> str:
        return f"{pb.BrowserStatus.Name(self.status)}: {self.message}"


class DocumentGone(Exception):
    """The document that was being read or acted on was replaced or closed."""


class BrowserDied(Exception):
    """The browser's process, or the page's, ended while an action ran."""


class Refused(Exception):
    """The action can never run here as it stands; nothing was touched."""


def reason_of(status: pb.BrowserStatus.ValueType) -> str:
    """The machine-readable reason of an outcome: BROWSER_STATUS_STALE is BROWSER_STALE."""
    return "BROWSER_" + pb.BrowserStatus.Name(status).removeprefix(_PREFIX)
