"""What goes wrong during the proof, when, and to whom: planned before, announced, done once, confirmed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal

from evals.end_to_end.mesh import Mesh, Part
from evals.records import Invoice
from evals.sites.fault_proxy import Phase, Save
from infra.clock import Clock
from infra.errors import DeadlineExceeded, InvalidArgument, Violation

FIND_S = 10.0
RECOVER_S = 30.0
POLL_S = 0.1
ANNOUNCED_S = 0.3
"""How long a person can read the announcement before it comes true; the save is in flight all that time."""


@dataclass(frozen=True, slots=True)
class Strike:
    """Kill this part while that record is being saved, in that phase."""

    part: Part
    number: str
    phase: Phase


@dataclass(frozen=True, slots=True)
class Plan:
    """Four strikes, and the record whose save is answered by a lie."""

    strikes: tuple[Strike, ...]
    lie: str


@dataclass(slots=True)
class Kill:
    """A strike that was carried out; the last two are filled in once the part is back."""

    strike: Strike
    pid: int
    at_s: float
    back_pid: int = 0
    back_s: float = 0.0


def plan_for(invoices: Sequence[Invoice], limit: Decimal) -> Plan:
    """Spread the faults over records that need no approval, each its own; the first goes undisturbed.

    Before and after take turns: killed before, the save still arrives, as a packet on the way does; killed after, it
    has happened and nobody has been told. Raises InvalidArgument for fewer than nine such records.
    """
    quiet = [invoice.number for invoice in invoices if invoice.amount <= limit]
    if len(quiet) < 9:
        few = f"{len(quiet)} records below the limit are too few for four kills and a lie: give at least 9"
        raise InvalidArgument(Violation("invoices", few))
    return Plan(
        strikes=(
            Strike(Part.WORKER, quiet[1], Phase.BEFORE_FORWARD),
            Strike(Part.CHROMIUM, quiet[4], Phase.AFTER_FORWARD),
            Strike(Part.ENVOY, quiet[6], Phase.BEFORE_FORWARD),
            Strike(Part.CONTROL_PLANE, quiet[8], Phase.AFTER_FORWARD),
        ),
        lie=quiet[3],
    )


async def kill(pid: int) -> None:
    """SIGKILL and wait until the process is gone; raises ProcessLookupError when there is none.

    By pidfd, so that a number that was given to another process meanwhile is never hit (pidfd_open(2)).
    """
    handle = os.pidfd_open(pid)
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(handle, gone.set)
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        await gone.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


Tell = Callable[[Kill], None]


class Saboteur:
    """Carries out a plan from inside the proxy's hooks.

    `announce` is called before the kill, `recovered` when the part runs again, `lied` when a save was answered falsely.
    """

    def __init__(
        self,
        plan: Plan,
        mesh: Mesh,
        clock: Clock,
        tasks: asyncio.TaskGroup,
        *,
        announce: Tell,
        recovered: Tell,
        lied: Callable[[Save], None],
        decoy: Callable[[], Awaitable[str]],
    ) -> None:
        self._due = list(plan.strikes)
        self._lie: str | None = plan.lie
        self._mesh = mesh
        self._clock = clock
        self._tasks = tasks
        self._announce = announce
        self._recovered = recovered
        self._lied = lied
        self._decoy = decoy
        self._began = clock.monotonic()
        self._watches: list[asyncio.Task[None]] = []
        self.kills: list[Kill] = []
        self.lies: list[str] = []

    async def on_save(self, save: Save, phase: Phase) -> None:
        """Strike if the plan says so; the save waits meanwhile."""
        for strike in self._due:
            if (strike.number, strike.phase) == (save.fields.get("number"), phase):
                self._due.remove(strike)
                await self._strike(strike)
                return

    async def divert(self, save: Save) -> str | None:
        """Let the decoy answer the first save of the chosen record."""
        if save.fields.get("number") != self._lie:
            return None
        address, self._lie = await self._decoy(), None
        self.lies.append(save.fields["number"])
        self._lied(save)
        return address

    async def all_back(self) -> None:
        """Wait until everything that was killed runs again, or is given up."""
        for watch in self._watches:
            await watch

    async def _strike(self, strike: Strike) -> None:
        pid = await self._pid(strike.part, other_than=0, within_s=FIND_S)
        done = Kill(strike, pid, self._clock.monotonic() - self._began)
        self._announce(done)
        await self._clock.sleep(ANNOUNCED_S)
        await kill(pid)
        self.kills.append(done)
        self._watches.append(self._tasks.create_task(self._see_it_back(done, self._clock.monotonic())))

    async def _see_it_back(self, done: Kill, killed: float) -> None:
        with suppress(DeadlineExceeded):  # told as a part that never came back
            done.back_pid = await self._pid(done.strike.part, other_than=done.pid, within_s=RECOVER_S)
            done.back_s = self._clock.monotonic() - killed
            self._recovered(done)

    async def _pid(self, part: Part, *, other_than: int, within_s: float) -> int:
        until = self._clock.monotonic() + within_s
        while self._clock.monotonic() < until:
            pid = (await self._mesh.pids()).get(part, 0)
            if pid not in (0, other_than):
                return pid
            await self._clock.sleep(POLL_S)
        raise DeadlineExceeded("PART_MISSING", f"the {part} did not run within {within_s:.0f} s: see the mesh's logs")
