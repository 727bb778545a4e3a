"""Stamps: a file that remembers the digest of what something was made from."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def digest(paths: Iterable[Path], *words: str) -> str:
    """Digest of the names and contents of files, of everything below folders, and of words that matter too."""
    total = hashlib.sha256("\0".join(words).encode())
    for file in sorted(file for path in paths for file in files_below(path)):
        total.update(f"\0{file}\0{file.stat().st_size}\0".encode())
        total.update(file.read_bytes())
    return total.hexdigest()


def files_below(path: Path) -> Iterable[Path]:
    """The file itself, or all files in a folder; nothing when there is no such path."""
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


def is_current(stamp: Path, expected: str) -> bool:
    """Whether the stamp was written for exactly this digest."""
    return stamp.is_file() and stamp.read_text().strip() == expected


def write(stamp: Path, value: str) -> None:
    """Remembers; to be called only when everything has succeeded."""
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(value + "\n")
