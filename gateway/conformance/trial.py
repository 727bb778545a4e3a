"""A whole trial: every check in turn, whatever the ones before it found."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gateway.conformance.bench import Bench
from gateway.conformance.checks import CHECKS
from gateway.conformance.operator import Operator, Person, Place, launcher
from gateway.conformance.plane import plane
from gateway.conformance.transcript import Transcript
from gateway.conformance.verdicts import Check, Failed, NotOffered, NotTried, Report, Result, Verdict
from gateway.conformance.witness import witness
from infra.clock import Clock
from infra.errors import InvalidArgument, Violation
from infra.ids import Ids

LONGEST_CHECK = 120.0  # seconds
WORKER_ID = "conformance-1"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be tried. Without a command, a person starts the worker and `ask` is how that person is spoken to."""

    listen: str = "127.0.0.1:0"
    command: Sequence[str] = ()
    worker_id: str = WORKER_ID
    token: str | None = None
    """None: one is made for the trial, where a command is given."""
    only: Sequence[str] = ()
    ask: Callable[[str], Awaitable[None]] | None = None


class Progress(Protocol):
    """Told what a trial does, while it does it."""

    def ready(self, place: Place) -> None:
        """The worker can be started."""
        ...

    def begins(self, check: Check[Bench], number: int, of: int) -> None: ...

    def ended(self, result: Result) -> None: ...


async def trial(asked: Asked, folder: Path, progress: Progress, *, clock: Clock, ids: Ids) -> Report:
    """Tries a worker; `folder` is for what it needs meanwhile. Raises InvalidArgument for a check that there is not."""
    checks = chosen(asked.only)
    started_ms = clock.now_ms()
    async with _bench(asked, folder, clock, ids) as bench:
        progress.ready(bench.place)
        results: list[Result] = []
        for number, check in enumerate(checks, 1):
            progress.begins(check, number, len(checks))
            results.append(_untried(check) if results and not bench.met else await _tried(check, bench))
            progress.ended(results[-1])
        worker = " ".join(asked.command) or asked.worker_id
        return Report(worker, started_ms, results, bench.operator.log())


def chosen(only: Sequence[str]) -> Sequence[Check[Bench]]:
    """The checks of these names, in their order; all without names."""
    known = {check.name for check in CHECKS}
    if unknown := [name for name in only if name not in known]:
        raise InvalidArgument(
            Violation("only", f"{unknown[0]!r} is no check; choose from {', '.join(check.name for check in CHECKS)}"),
            reason="UNKNOWN_CHECK",
        )
    return [check for check in CHECKS if not only or check.name in only]


@asynccontextmanager
async def _bench(asked: Asked, folder: Path, clock: Clock, ids: Ids) -> AsyncGenerator[Bench]:
    data_dir, token_file = folder / "data", folder / "token"
    data_dir.mkdir(mode=0o700)
    token = (ids.secret() if asked.command else "") if asked.token is None else asked.token
    token_file.touch(mode=0o600)
    token_file.write_text(token)
    transcript = Transcript(clock)
    async with (
        witness(transcript) as world,
        plane(asked.listen, token, clock, transcript) as server,
    ):
        worker_id = asked.worker_id if asked.command else ""
        place = Place(server.address, worker_id, token_file, data_dir, world.url)
        async with _operated(asked, place, folder, clock) as operator:
            yield Bench(server, world, operator, place, clock, ids, transcript)


@asynccontextmanager
async def _operated(asked: Asked, place: Place, folder: Path, clock: Clock) -> AsyncGenerator[Operator]:
    if not asked.command:
        yield Person(asked.ask)
        return
    async with launcher(asked.command, place, folder, clock) as launching:
        yield launching


def _untried(check: Check[Bench]) -> Result:
    """There is nobody to try it on."""
    reason = "the worker has never said Hello"
    return Result(check.name, check.rule, check.required, Verdict.SKIP, reason, 0.0, (), tried=False)


async def _tried(check: Check[Bench], bench: Bench) -> Result:
    mark, started = len(bench.transcript), bench.clock.monotonic()
    verdict, reason, tried = Verdict.PASS, "", True
    try:
        async with asyncio.timeout(LONGEST_CHECK):
            await check.attempt(bench)
    except Failed as failure:
        verdict, reason = Verdict.FAIL, str(failure)
    except TimeoutError:
        verdict, reason = Verdict.FAIL, f"it did not end within {LONGEST_CHECK:g} s"
    except NotOffered as why:
        verdict, reason = Verdict.SKIP, str(why)
    except NotTried as why:
        verdict, reason, tried = Verdict.SKIP, str(why), False
    seconds = round(bench.clock.monotonic() - started, 3)
    evidence = bench.transcript.since(mark)
    await bench.tidy(failed=verdict is Verdict.FAIL)
    return Result(check.name, check.rule, check.required, verdict, reason, seconds, evidence, tried)
