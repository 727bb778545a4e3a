"""Where a run is shown while it goes: a live tree for a person, JSON lines for a program."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

from google.protobuf.json_format import MessageToDict
from rich.console import RenderableType
from rich.live import Live

from control.core.run import RunFold
from gateway.cli.output import console, print_json
from gateway.cli.tree import run_view
from gateway.watching import Link
from skyagent.run.v1 import event_pb2 as ev

REFRESH_PER_SECOND = 8


class Screen(Protocol):
    """Told of everything that a watch brings."""

    def event(self, event: ev.RunEvent, folded: RunFold) -> None:
        """An event, and the run as it stands after it."""
        ...

    def link(self, link: Link, folded: RunFold) -> None:
        """The connection broke, or is back."""
        ...

    @contextmanager
    def quiet(self, folded: RunFold) -> Generator[None]:
        """The terminal belongs to a question for the block."""
        ...


class Lines:
    """One line of JSON for each event, as REST has them."""

    def event(self, event: ev.RunEvent, folded: RunFold) -> None:
        print_json({"event": MessageToDict(event)})

    def link(self, link: Link, folded: RunFold) -> None:
        print_json({"link": link.value, "afterSeq": str(folded.state.seq)})

    @contextmanager
    def quiet(self, folded: RunFold) -> Generator[None]:
        yield


class Terminal:
    """A tree that is redrawn in place, as often as an eye can follow."""

    def __init__(self) -> None:
        self._live = _started()
        self._lost = False

    def event(self, event: ev.RunEvent, folded: RunFold) -> None:
        self._draw(folded)

    def link(self, link: Link, folded: RunFold) -> None:
        self._lost = link is Link.LOST
        self._draw(folded)

    @contextmanager
    def quiet(self, folded: RunFold) -> Generator[None]:
        self._live.stop()
        try:
            yield
        finally:
            # A new one below: the old one would redraw itself over the question and its answer.
            self._live = _started()
            self._draw(folded)

    def close(self) -> None:
        """Leaves the last view standing."""
        self._live.stop()

    def _draw(self, folded: RunFold) -> None:
        # The view is made when it is drawn, not for each of the hundreds of events of a second.
        self._live.update(_Later(folded, self._lost))


class _Later:
    def __init__(self, folded: RunFold, lost: bool) -> None:  # noqa: FBT001 - private
        self._folded, self._lost = folded, lost

    def __rich__(self) -> RenderableType:
        return run_view(self._folded, link_lost=self._lost)


@contextmanager
def screen(*, json_lines: bool) -> Generator[Screen]:
    """The right one."""
    if json_lines:
        yield Lines()
        return
    terminal = Terminal()
    try:
        yield terminal
    finally:
        terminal.close()


def _started() -> Live:
    live = Live(console=console, refresh_per_second=REFRESH_PER_SECOND, vertical_overflow="ellipsis")
    live.start()
    return live
