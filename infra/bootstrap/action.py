"""Carrying out one action: one line when it begins, its output in a log, another try when a download fails."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FOR_DOWNLOADS = 3
PAUSE_S = 3.0
LINES_SHOWN = 15


class BootstrapError(Exception):
    """The machine could not be made ready; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Action:
    """A command to run and what to call it. `environment` is laid over the caller's own."""

    title: str
    command: Sequence[str]
    folder: Path | None = None
    environment: Mapping[str, str] | None = None
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Doer:
    """Runs actions. Their output goes to `log`; `pause_s` lies between two tries."""

    log: Path
    pause_s: float = PAUSE_S

    def do(self, action: Action) -> None:
        """Runs it, as often as it may be tried; raises BootstrapError with the end of its output."""
        say(f"{action.title} …")
        began = time.monotonic()
        for attempt in range(1, action.attempts + 1):
            if self._succeeds(action):
                say(f"done in {time.monotonic() - began:.1f} s")
                return
            if attempt < action.attempts:
                say(f"failed ({attempt} of {action.attempts}), trying again in {self.pause_s:g} s")
                time.sleep(self.pause_s)
        raise BootstrapError(self._report(action))

    def _succeeds(self, action: Action) -> bool:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as output:
            done = subprocess.run(
                action.command,
                cwd=action.folder,
                env={**os.environ, **(action.environment or {})},
                stdin=None if sys.stdin.isatty() else subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        return done.returncode == 0

    def _report(self, action: Action) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-LINES_SHOWN:]
        tries = f" {action.attempts} times; is the network there?" if action.attempts > 1 else "."
        said = "\n".join(f"    {line}" for line in lines)
        return f"{action.title}: failed{tries} `{shlex.join(action.command)}` ended with:\n{said}"


def say(line: str) -> None:
    """One line to the person, at once."""
    print(f"bootstrap: {line}", flush=True)
