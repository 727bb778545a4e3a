"""Logs are events with fields: a stable dotted name, then what there is to know, never a sentence put together."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from infra.errors import SkyError
from infra.settings import LogSettings

_FIELDS = "fields"
# Libraries that speak at their own level; only their warnings are ours.
_LOUD = ("grpc", "asyncio", "opentelemetry", "urllib3")


class EventLog:
    """Logs events of one module."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: object) -> None:
        self._log(logging.DEBUG, event, None, fields)

    def info(self, event: str, **fields: object) -> None:
        self._log(logging.INFO, event, None, fields)

    def warning(self, event: str, *, error: BaseException | None = None, **fields: object) -> None:
        self._log(logging.WARNING, event, error, fields)

    def error(self, event: str, *, error: BaseException | None = None, **fields: object) -> None:
        """With the traceback of `error`, unless it is a SkyError, whose message says it all."""
        self._log(logging.ERROR, event, error, fields)

    def _log(self, level: int, event: str, error: BaseException | None, fields: dict[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            known = {"error": str(error)} if isinstance(error, SkyError) else {}
            raised = None if error is None or known else error
            self._logger.log(level, event, exc_info=raised, extra={_FIELDS: {**fields, **known}})


def event_logger(name: str) -> EventLog:
    """The log of a module, for its `__name__`."""
    return EventLog(name)


def configure_logging(settings: LogSettings) -> None:
    """Send everything to standard error, one line per event. Called once, by main."""
    target = logging.StreamHandler(sys.stderr)
    target.setFormatter(_JsonLine() if settings.json_lines else _ReadableLine())
    root = logging.getLogger()
    root.handlers[:] = [target]
    root.setLevel(settings.level.upper())
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.WARNING)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return getattr(record, _FIELDS, {})


class _JsonLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class _ReadableLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
        fields = "".join(f" {name}={_shown(value)}" for name, value in _fields(record).items())
        line = f"{time} {record.levelname:<7} {record.getMessage()}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _shown(value: object) -> str:
    text = str(value)
    return json.dumps(text) if not text or any(c.isspace() or c == '"' for c in text) else text
