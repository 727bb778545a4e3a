"""What a browser worker is told at start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from execution.sealing import Seal


@dataclass(frozen=True, slots=True)
class BrowserConfig:
    """Limits and paths; times in seconds."""

    #: Where profiles and session states live; private to this worker.
    directory: Path
    #: Chromium's executable; None means the first one on the PATH.
    executable: Path | None = None
    #: Flags besides our own.
    flags: tuple[str, ...] = ()
    headless: bool = True
    #: Hosts that every mission may reach besides its own.
    hosts: tuple[str, ...] = ()
    viewport: tuple[int, int] = (1280, 800)
    #: For an action that names no timeout.
    default_timeout: float = 15.0
    #: How long an element may take to appear and to become ready before its state is the answer.
    patience: float = 2.0
    #: No change of the page for so long counts as settled.
    stillness: float = 0.06
    #: Upper bound of waiting for stillness.
    settle_limit: float = 2.0
    launch_timeout: float = 30.0
    max_sessions: int = 16
    max_tabs: int = 8
    #: In bytes; the worker holds a file in memory while it hands it over.
    largest_download: int = 64 * 1024 * 1024
    #: A session unused for so long is closed; its state stays on disk and is restored when it is used again.
    idle_limit: float = 900.0
    #: With which cookies and storage are sealed before they leave the worker; none means that they do not.
    seal: Seal | None = None

    def uploads(self, run_id: str) -> Path:
        """Where files that a run gives to pages lie until the run ends."""
        return self.directory / "uploads" / run_id
