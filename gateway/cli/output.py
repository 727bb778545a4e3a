"""Lists and messages: a table for a person, JSON lines for a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table
from rich.text import Text

console = Console(highlight=False)


def machine_readable(*, json_lines: bool) -> bool:
    """Whether to print JSON: it was asked for, or nobody is there to look at a table."""
    return json_lines or not sys.stdout.isatty()


def print_json(value: object) -> None:
    """One line."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_message(message: Message) -> None:
    """One line, in the JSON form of protobuf, as REST has it."""
    print_json(MessageToDict(message))


def plain(text: str, style: str = "") -> Text:
    """Text that others wrote, for a terminal: what would move its cursor or pass as markup is only shown."""
    return Text("".join(character if character.isprintable() else " " for character in text), style)


def print_list(
    messages: Iterable[Message], columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, json_lines: bool
) -> None:
    """Messages as lines, or their rows as a table."""
    if machine_readable(json_lines=json_lines):
        for message in messages:
            print_message(message)
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for index, column in enumerate(columns):  # the first one is an id, which people copy
        table.add_column(column, overflow="fold", no_wrap=index == 0)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else plain(cell) for cell in row))
    console.print(table if table.row_count else "[dim]nothing yet[/dim]")


def when(time: Timestamp) -> str:
    """A time for a person, in this machine's zone."""
    if not time.seconds:
        return "-"
    return datetime.fromtimestamp(time.seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def phase(name: str) -> Text:
    """RUN_PHASE_SUCCEEDED as "succeeded", coloured."""
    word = name.removeprefix("RUN_PHASE_").lower()
    colour = {"succeeded": "green", "failed": "red", "running": "cyan", "waiting": "yellow"}.get(word, "default")
    return Text(word, colour)
