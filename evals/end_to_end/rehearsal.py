"""A mesh of straw: enters the records by plain HTTP, as carefully or as carelessly as told.

It exists to try the proof itself. With a careless clerk the proof must fail; a proof that cannot fail proves nothing.
"""

from __future__ import annotations

import asyncio
import csv
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import date
from decimal import Decimal
from enum import StrEnum
from pathlib import Path

from evals.end_to_end.mesh import Order, Part, Progress, Question, Record, Stage
from evals.records import CATEGORIES, HEADINGS, Invoice
from evals.sites.ledger.clerk import Clerk, clerk
from evals.sites.ledger.process import Account
from infra.clock import Clock

RUN_ID = "rehearsal"
SETTLE_S = 1.0


class Conduct(StrEnum):
    """How the clerk works."""

    CAREFUL = "careful"
    """Asks the list before saving again, and before calling a record done; what is on its way gets time to arrive."""
    IMPATIENT = "impatient"
    """Asks the list too, but at once, while the interrupted save may be on its way."""
    BELIEVING = "believing"
    """Takes a success page for success."""
    UNASKING = "unasking"
    """Enters what is above the limit without a person's yes."""


class RehearsalMesh:
    """Four idle processes that are started again when they die, and one clerk."""

    def __init__(self, conduct: Conduct, account: Account, clock: Clock, tasks: asyncio.TaskGroup) -> None:
        self._conduct = conduct
        self._account = account
        self._clock = clock
        self._tasks = tasks
        self._processes: dict[Part, asyncio.subprocess.Process] = {}
        self._interrupted = asyncio.Event()
        self._changed = asyncio.Event()
        self._answers: dict[str, asyncio.Future[bool]] = {}
        self._progress = Progress("running", {})

    async def keep_up(self, part: Part) -> None:
        """Run a part; start it again, and interrupt the clerk, whenever it dies."""
        try:
            while True:
                self._processes[part] = child = await asyncio.create_subprocess_exec("sleep", "600")
                await child.wait()
                del self._processes[part]
                self._interrupted.set()
        finally:
            if part in self._processes:
                with suppress(ProcessLookupError):
                    self._processes[part].kill()
                await self._processes[part].wait()

    async def pids(self) -> Mapping[Part, int]:
        return {part: child.pid for part, child in self._processes.items()}

    async def start(self, order: Order) -> str:
        self._tasks.create_task(self._work(order))
        return RUN_ID

    async def progress(self, run_id: str) -> AsyncIterator[Progress]:
        while True:
            self._changed.clear()
            latest = self._progress
            yield latest
            if latest.finished:
                return
            await self._changed.wait()

    async def decide(self, question: Question, *, granted: bool) -> None:
        self._answers[question.approval_id].set_result(granted)

    async def artifacts(self, run_id: str, into: Path) -> tuple[Path, ...]:
        return ()

    def page(self, run_id: str) -> str:
        return "no page: this is a rehearsal"

    def door(self, run_id: str) -> str:
        return self.page(run_id)

    async def _work(self, order: Order) -> None:
        invoices = await asyncio.to_thread(read_csv, order.rows)
        async with clerk(order.site, self._account) as worker:
            for invoice in invoices:
                await self._enter(worker, invoice, Decimal(order.approve_above))
        failed = [number for number, record in self._progress.records.items() if record.stage is Stage.FAILED]
        self._tell(lambda now: replace(now, phase="finished", finished=True, succeeded=not failed))

    async def _enter(self, worker: Clerk, invoice: Invoice, limit: Decimal) -> None:
        if invoice.amount > limit and self._conduct is not Conduct.UNASKING and not await self._allowed(invoice):
            self._stage(invoice, Stage.DENIED)
            return
        for tries in range(1, 4):
            self._stage(invoice, Stage.ENTERING, tries)
            said_so = await self._save(worker, invoice)
            self._stage(invoice, Stage.CHECKING, tries)
            if said_so and self._conduct is Conduct.BELIEVING:
                self._stage(invoice, Stage.DONE, tries)
                return
            if not said_so and self._conduct is not Conduct.IMPATIENT:
                await self._clock.sleep(SETTLE_S)
            if await worker.listed(invoice.number) == 1:
                self._stage(invoice, Stage.DONE, tries)
                return
            if said_so:
                self._tell(lambda now: replace(now, false_successes=now.false_successes + 1))
        self._stage(invoice, Stage.FAILED)

    async def _save(self, worker: Clerk, invoice: Invoice) -> bool:
        """Whether the application said that it saved; False when the clerk was interrupted before it could."""
        self._interrupted.clear()
        saving = self._tasks.create_task(worker.enter(invoice))
        interruption = self._tasks.create_task(self._interrupted.wait())
        await asyncio.wait((saving, interruption), return_when=asyncio.FIRST_COMPLETED)
        interruption.cancel()
        if not saving.done():
            saving.cancel()
            with suppress(asyncio.CancelledError):
                await saving
            return False
        return "added successfully" in saving.result().text

    async def _allowed(self, invoice: Invoice) -> bool:
        question = Question(invoice.number, "", f"Save {invoice.number} over {invoice.amount}", ("above the limit",))
        self._answers[question.approval_id] = answer = asyncio.get_running_loop().create_future()
        self._stage(invoice, Stage.ASKING)
        self._tell(lambda now: replace(now, questions=(question,)))
        granted = await answer
        self._tell(lambda now: replace(now, questions=()))
        return granted

    def _stage(self, invoice: Invoice, stage: Stage, tries: int = 0) -> None:
        record = Record(stage, tries=tries)
        self._tell(lambda now: replace(now, records={**now.records, invoice.number: record}))

    def _tell(self, change: Callable[[Progress], Progress]) -> None:
        self._progress = replace(change(self._progress), events=self._progress.events + 1)
        self._changed.set()


@asynccontextmanager
async def rehearsal(conduct: Conduct, account: Account, clock: Clock) -> AsyncGenerator[RehearsalMesh]:
    """The straw mesh, up until the block ends."""
    async with asyncio.TaskGroup() as tasks:
        mesh = RehearsalMesh(conduct, account, clock, tasks)
        keeping = [tasks.create_task(mesh.keep_up(part)) for part in Part]
        yield mesh
        for task in keeping:
            task.cancel()


def read_csv(path: Path) -> list[Invoice]:
    """The records of a file that `write_csv` wrote."""
    codes = {label: code for code, label in CATEGORIES.items()}
    with path.open(encoding="utf-8", newline="") as file:
        rows = [{name: row[heading] for name, heading in HEADINGS.items()} for row in csv.DictReader(file)]
    return [
        Invoice(
            number=row["number"],
            supplier=row["supplier"],
            email=row["email"],
            issued=date.fromisoformat(row["issued"]),
            category=codes[row["category"]],
            amount=Decimal(row["amount"]),
            currency=row["currency"],
            paid=row["paid"] == "yes",
            notes=row["notes"],
        )
        for row in rows
    ]
