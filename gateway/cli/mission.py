"""From the words of a command line to a mission."""

from __future__ import annotations

import asyncio
import mimetypes
import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path

from control.core.facts import host_of
from gateway.cli.amounts import limits_of
from gateway.client import Services
from infra.errors import InvalidArgument, Violation
from skyagent.artifact.v1 import artifact_service_pb2 as artifacts
from skyagent.common.v1.blob_pb2 import BlobRef
from skyagent.mission.v1 import mission_pb2 as pb

CHUNK = 512 * 1024
MAX_FILE_BYTES = 16 * 1024 * 1024
NAME = re.compile("[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked on the command line; `files` by the input that they are for, "" for the lone one."""

    template: str
    goal: str
    files: Mapping[str, Path]
    inputs: Mapping[str, str]
    runtime: str
    allowed_hosts: tuple[str, ...]
    approve_above: str
    dry_run: bool
    amounts: Mapping[str, int] = field(default_factory=dict[str, int])
    """What the mission may use, by kind."""


def split_inputs(given: list[str]) -> tuple[dict[str, Path], dict[str, str]]:
    """`FILE`, `INPUT=FILE` and `INPUT=VALUE`, told apart by what exists; raises InvalidArgument."""
    files: dict[str, Path] = {}
    values: dict[str, str] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator or not NAME.fullmatch(name) or Path(text).is_file():
            files[""] = _readable(Path(text))
        elif Path(value).expanduser().is_file():
            files[name] = _readable(Path(value))
        else:
            values[name] = value
    return files, values


def named_values(option: str, given: list[str]) -> dict[str, str]:
    """INPUT=VALUE; raises InvalidArgument."""
    pairs = [text.partition("=") for text in given]
    for (name, separator, _), text in zip(pairs, given, strict=True):
        if not separator or not NAME.fullmatch(name):
            raise InvalidArgument(Violation(option, f"{text!r} is not INPUT=VALUE"), reason="BAD_OPTION")
    return {name: value for name, _, value in pairs}


async def spec_of(wish: Wish, services: Services) -> pb.MissionSpec:
    """The mission, with its files stored."""
    files = [await _upload(services, name, path) for name, path in wish.files.items()]
    return pb.MissionSpec(
        goal=wish.goal or _goal(wish),
        template=wish.template,
        inputs=[pb.Input(name=name, value=value) for name, value in wish.inputs.items()],
        files=files,
        runtime=pb.Runtime.Value(f"RUNTIME_{wish.runtime.upper()}"),
        allowed_hosts=allowed_hosts(wish),
        limits=_limits(wish),
        dry_run=wish.dry_run,
    )


def allowed_hosts(wish: Wish) -> tuple[str, ...]:
    """Hosts that were named, and the site's own; none means the site's own alone."""
    own = host_of(wish.inputs.get("site", ""))
    return (*((own,) if own else ()), *wish.allowed_hosts) if wish.allowed_hosts else ()


def cents(text: str) -> int:
    """Hundredths of "1000" or "1000.50"; raises InvalidArgument."""
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or amount < 0 or amount != amount.quantize(Decimal("0.01")):
        raise InvalidArgument(
            Violation("--approve-above", f"{text!r} is no amount of money such as 1000 or 1000.50"), reason="BAD_OPTION"
        )
    return int(amount * 100)


def _limits(wish: Wish) -> pb.Limits | None:
    if not wish.amounts and not wish.approve_above:
        return None
    limits = limits_of(wish.amounts)
    limits.approve_above_cents = cents(wish.approve_above) if wish.approve_above else 0
    return limits


def _readable(path: Path) -> Path:
    path = path.expanduser()
    if not path.is_file():
        raise InvalidArgument(
            Violation("--input", f"there is no file {str(path)!r}; give a FILE or INPUT=VALUE"), reason="NO_FILE"
        )
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        problem = f"{path} has {size:,} bytes, at most {MAX_FILE_BYTES:,} are taken: split it"
        raise InvalidArgument(Violation("--input", problem), reason="FILE_TOO_LARGE")
    return path


def _goal(wish: Wish) -> str:
    """What a template is for needs no words; a list of runs does."""
    names = ", ".join(path.name for path in wish.files.values())
    site = wish.inputs.get("site", "")
    return " ".join((wish.template, *((names,) if names else ()), *((f"→ {site}",) if site else ())))


async def _upload(services: Services, name: str, path: Path) -> BlobRef:
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"

    data = await asyncio.to_thread(path.read_bytes)

    async def parts() -> AsyncGenerator[artifacts.UploadRequest]:
        yield artifacts.UploadRequest(header=artifacts.UploadHeader(name=path.name, media_type=media_type))
        for start in range(0, len(data), CHUNK):
            yield artifacts.UploadRequest(data=data[start : start + CHUNK])

    stored = (await services.artifacts.Upload(parts())).blob
    return BlobRef(digest=stored.digest, size=stored.size, media_type=media_type, role=name or "input")
