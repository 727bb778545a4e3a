"""What a session is restored from after a crash: cookies, local storage and the last addresses, on disk."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from playwright.async_api import StorageState


@dataclass(frozen=True, slots=True)
class SavedSession:
    """The state of a session after its last navigation or effect."""

    storage: StorageState
    #: Addresses of its tabs.
    urls: list[str] = field(default_factory=list[str])
    active: int = 0
    #: Highest document epoch that was given out.
    epoch: int = 0


def identity(storage: StorageState) -> bytes:
    """The same for states that let a page do the same: when cookies expire, which each answer may move, is left out."""
    cookies = [
        {name: value for name, value in cookie.items() if name != "expires"} for cookie in storage.get("cookies", [])
    ]
    return json.dumps([cookies, storage.get("origins", [])], sort_keys=True).encode()


class SessionStore:
    """Session states in a folder: <run_id>/<session_id>.json, readable by the worker's user only."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def save(self, run_id: str, session_id: str, saved: SavedSession) -> None:
        """Replaces a session's state; on disk when this returns."""
        path = self._path(run_id, session_id)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = path.with_suffix(".new")
        fresh.touch(mode=0o600)
        with fresh.open("w", encoding="utf-8") as file:
            json.dump(asdict(saved), file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def load(self, run_id: str, session_id: str) -> SavedSession | None:
        """A session's last state; None when there is none or it cannot be read."""
        try:
            loaded = cast("dict[str, Any]", json.loads(self._path(run_id, session_id).read_text("utf-8")))
            return SavedSession(**loaded)
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def forget(self, run_id: str) -> None:
        """Removes everything that was kept for a run."""
        shutil.rmtree(self._directory / _file_name(run_id), ignore_errors=True)

    def sessions(self) -> list[tuple[str, str]]:
        """(run, session) of every state that is kept."""
        return [(path.parent.name, path.stem) for path in sorted(self._directory.glob("*/*.json"))]

    def _path(self, run_id: str, session_id: str) -> Path:
        return self._directory / _file_name(run_id) / f"{_file_name(session_id)}.json"


def _file_name(text: str) -> str:
    # A session id is a name that a plan chose: only harmless characters become part of a path.
    return "".join(c if c.isalnum() or c in "-_" else f"%{ord(c):x}" for c in text) or "default"
