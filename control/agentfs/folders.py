"""The folder of a run, for people: links under readable names to bytes in the blob store."""

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

    def link(self, run_id: str, part: str, name: str, digest: str) -> Path:
        """Shows a blob in a run's folder. The same name with other bytes gets a number: nothing is overwritten."""
        digits = digest_hex(digest)
        source = self.blobs / "b3" / digits[:2] / digits
        folder = self.of(run_id) / part
        for target in _names(folder, safe_name(name)):
            if not target.exists():
                _link(source, target)
                return target
            if target.samefile(source) or target.read_bytes() == source.read_bytes():
                return target
        raise AssertionError("there is always another number")


def safe_name(name: str) -> str:
    """A file name that stays in its folder, whatever a page or a person called it."""
    return _UNSAFE.sub("_", name).lstrip(".") or "file"


def _names(folder: Path, name: str) -> Iterator[Path]:
    yield folder / name
    stem, dot, suffix = name.partition(".")
    number = 2
    while True:
        yield folder / f"{stem}-{number}{dot}{suffix}"
        number += 1


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
