"""The bundle in force: in memory for judging, in one file for the next start."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

from pydantic import BaseModel, ConfigDict, ValidationError

from control.policy_engine.engine import Bundle, default_policies
from infra.disk import explained, sync_folder
from infra.errors import Conflict, InvalidArgument, Precondition


@dataclass(frozen=True, slots=True)
class InForce:
    """A bundle, and who put it when (milliseconds since the Unix epoch; 0 for the product's own)."""

    bundle: Bundle
    actor: str = ""
    time_ms: int = 0


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    policies: str
    actor: str
    time_ms: int


class BundleStore:
    """Holds the bundle in force. Replacing it is one assignment, so that every judgement sees one bundle whole."""

    def __init__(self, folder: Path) -> None:
        """Raises Precondition POLICY_UNREADABLE when a bundle was put and cannot be used: then nothing is judged."""
        self._path = folder / "bundle.json"
        self._replacing = threading.Lock()
        self._current = self._load()

    @property
    def current(self) -> InForce:
        """The bundle in force."""
        return self._current

    def replace(self, candidate: InForce, *, expect_digest: str) -> None:
        """Put another bundle in force, durably; waits for the disk. Raises Conflict when another one is in force."""
        with self._replacing:
            self._replace(candidate, expect_digest)

    def _replace(self, candidate: InForce, expect_digest: str) -> None:
        digest = self._current.bundle.digest
        if expect_digest and expect_digest != digest:
            raise Conflict("BUNDLE_CHANGED", f"the bundle in force is {digest}: read it again, then decide again")
        file = _File(policies=candidate.bundle.policies, actor=candidate.actor, time_ms=candidate.time_ms)
        with explained(self._path):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_atomically(self._path, file.model_dump_json(indent=1).encode())
        self._current = candidate

    def _load(self) -> InForce:
        try:
            file = _File.model_validate_json(self._path.read_bytes())
            return InForce(Bundle(file.policies), file.actor, file.time_ms)
        except FileNotFoundError:
            return InForce(Bundle(default_policies()))
        except (OSError, ValidationError, InvalidArgument, json.JSONDecodeError) as bad:
            raise Precondition(
                "POLICY_UNREADABLE",
                f"the bundle in {self._path} cannot be used: {bad}; mend the file, or remove it for the default rules",
                path=str(self._path),
            ) from bad


def _write_atomically(path: Path, content: bytes) -> None:
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as draft:
        try:
            draft.write(content)
            draft.flush()
            os.fsync(draft.fileno())
            Path(draft.name).replace(path)
        except BaseException:
            Path(draft.name).unlink(missing_ok=True)
            raise
    sync_folder(path.parent)
