"""Asking the person at the terminal, without stopping anything else."""

from __future__ import annotations

import asyncio
import sys

from rich.console import Console
from rich.text import Text

from gateway.cli.output import plain
from skyagent.run.v1 import state_pb2 as st

YES = frozenset({"y", "yes"})


def somebody_is_there() -> bool:
    """Whether a person can both read a question and type an answer."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def show_question(console: Console, approval: st.ApprovalRecord) -> None:
    """What will happen, why it is asked, and what the answer binds."""
    console.print(Text("\nA person is asked  ", "bold yellow").append_text(plain(approval.summary, "default")))
    for reason in approval.reasons:
        console.print(Text("  why     ").append_text(plain(reason)))
    console.print(plain(f"  policy  {', '.join(approval.policy_ids)}", "dim"))
    console.print(plain(f"  action  {approval.action_digest}", "dim"))


async def yes_or_no(console: Console, question: str) -> bool:
    """One line from the terminal; anything but y or yes is no. It can be cancelled, unlike input()."""
    console.print(Text(f"{question} [y/N] "), end="")
    return (await _line()).strip().lower() in YES


async def press_enter(what: str) -> None:
    """Asks the person to do something, and returns once they say that it is done."""
    print(f"\nplease {what}, then press Enter ", end="", flush=True)
    await _line()


async def _line() -> str:
    loop = asyncio.get_running_loop()
    line: asyncio.Future[str] = loop.create_future()

    def read() -> None:
        if not line.done():
            line.set_result(sys.stdin.readline())

    loop.add_reader(sys.stdin.fileno(), read)
    try:
        return await line
    finally:
        loop.remove_reader(sys.stdin.fileno())
