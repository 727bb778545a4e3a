"""The folder of a run, for people: links under readable names to bytes in the blob store.

Only a view, made after the fact: whoever shows something here goes on when it cannot be shown.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from infra.digest import digest_hex

PARTS = ("inputs", "workspace", "artifacts", "observations")
_UNSAFE = re.compile(r"[^\w.@ +-]+")
_LONGEST = 200
"""Bytes of a name, of the 255 that file systems take; its end is kept, because that says what it is."""


@dataclass(frozen=True, slots=True)
class RunFolders:
    """agentfs/missions/<run_id>/…; `blobs` is the folder of the blob store on the same machine."""

    root: Path
    blobs: Path

    def of(self, run_id: str) -> Path:
        """The folder of a run, made when it is missing."""
        folder = self.root / "missions" / run_id
        for part in PARTS:
            (folder / part).mkdir(parents=True, exist_ok=True)
        return folder

    def remove(self, run_id: str) -> None:
        """Shows nothing of a run any more."""
        shutil.rmtree(self.root / "missions" / run_id, ignore_errors=True)

    def link(self, run_id: str, part: str, name: str, digest: str) -> Path:
        """Shows a blob in a run's folder. The same name with other bytes gets a number: nothing is overwritten."""
        digits = digest_hex(digest)
        source = self.blobs / "b3" / digits[:2] / digits
        folder = self.of(run_id) / part
        for target in _names(folder, safe_name(name)):
            if _linked(source, target) or _same(source, target):
                return target
        raise AssertionError("there is always another number")


def safe_name(name: str) -> str:
    """A file name that stays in its folder, whatever a page or a person called it."""
    short = _UNSAFE.sub("_", name).encode()[-_LONGEST:].decode(errors="ignore")
    return short.lstrip(".") or "file"


def _names(folder: Path, name: str) -> Iterator[Path]:
    yield folder / name
    stem, dot, suffix = name.partition(".")
    number = 2
    while True:
        yield folder / f"{stem}-{number}{dot}{suffix}"
        number += 1


def _linked(source: Path, target: Path) -> bool:
    """Whether the name was free and shows the bytes now. What is there is never written to: it may be a blob itself."""
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError:  # another file system, or one without links
        return _copied(source, target)
    return True


def _copied(source: Path, target: Path) -> bool:
    try:
        with source.open("rb") as read, target.open("xb") as write:
            shutil.copyfileobj(read, write)
    except FileExistsError:
        return False
    return True


def _same(source: Path, target: Path) -> bool:
    return target.samefile(source) or target.read_bytes() == source.read_bytes()
