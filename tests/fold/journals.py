"""Journals as files: length-delimited events, which the fold in TypeScript reads too."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path

from google.protobuf.proto import parse_length_prefixed, serialize_length_prefixed

from skyagent.run.v1.event_pb2 import RunEvent

REPOSITORY = Path(__file__).resolve().parents[2]
DASHBOARD = REPOSITORY / "dashboard"
NODE = REPOSITORY / ".venv" / "bin" / "node"


def write(path: Path, events: Iterable[RunEvent]) -> Path:
    stream = BytesIO()
    for event in events:
        serialize_length_prefixed(event, stream)
    path.write_bytes(stream.getvalue())
    return path


def read(path: Path) -> list[RunEvent]:
    stream = BytesIO(path.read_bytes())
    events: list[RunEvent] = []
    while stream.tell() < len(stream.getbuffer()):
        events.append(parse_length_prefixed(RunEvent, stream))
    return events


def typescript_digests(paths: Sequence[Path]) -> list[str]:
    """What the dashboard's fold makes of these journals."""
    script = DASHBOARD / "scripts" / "fold.mjs"
    done = subprocess.run([NODE, script, *paths], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
