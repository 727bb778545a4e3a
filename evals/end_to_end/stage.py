"""One performance of the proof: application, proxy, mesh and person brought together, and judged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from evals import records
from evals.end_to_end.kills import Saboteur, plan_for
from evals.end_to_end.mesh import Mesh, Order, Progress, Question
from evals.end_to_end.outcome import Evidence
from evals.end_to_end.person import Person
from evals.end_to_end.report import Material, write_report
from evals.end_to_end.scene import Row, scene_for
from evals.end_to_end.screen import Screen, showing
from evals.judge import judge
from evals.sites import ledger
from evals.sites.fault_proxy import FaultProxy, Faults, fault_proxy
from infra.clock import Clock
from infra.ids import seeded_ids

SITE = "Django's admin"
POST_LATENCY_S = 0.15
LOOK_S = 0.5
RUN_S = 240.0
"""How long the run may take, counted anew once a person has answered."""

OpenMesh = Callable[[Path, ledger.Account], AbstractAsyncContextManager[Mesh]]
"""Brings up a mesh in a folder that may sign in with that account."""


@dataclass(frozen=True, slots=True)
class Cast:
    """Who and what takes part. `folder` takes everything that the proof leaves behind."""

    folder: Path
    seed: int
    account: ledger.Account
    person: Person
    open_mesh: OpenMesh
    console: Console
    clock: Clock


@dataclass(frozen=True, slots=True)
class Proven:
    """The end of a performance, with the mesh still up."""

    evidence: Evidence
    rows: Mapping[str, Row]
    page: str
    door: str


@asynccontextmanager
async def performed(cast: Cast) -> AsyncGenerator[Proven]:
    """Perform the proof, write its report, and keep the mesh up until the block ends.

    Raises TimeoutError when the run does not end in time.
    """
    cast.folder.mkdir(parents=True, exist_ok=True)
    began = cast.clock.monotonic()
    async with (
        ledger.running(cast.folder / "application", cast.account) as site,
        ledger.decoy(site, cast.folder / "decoy") as decoy,
        cast.open_mesh(cast.folder / "mesh", cast.account) as mesh,
    ):
        performance = _Performance(cast, site, decoy, mesh, began)
        yield await performance.run()


class _Performance:
    def __init__(self, cast: Cast, site: ledger.Ledger, decoy: ledger.Decoy, mesh: Mesh, began: float) -> None:
        self._cast = cast
        self._site = site
        self._decoy = decoy
        self._mesh = mesh
        self._invoices = records.make(seeded_ids(cast.seed, cast.clock))
        self._csv = cast.folder / "invoices.csv"
        self._scene = scene_for(self._invoices, SITE, began)
        self._answers: dict[str, bool] = {}
        self._denied: set[str] = set()
        self._asked: set[str] = set()
        self._waited_s = 0.0
        records.write_csv(self._csv, self._invoices)

    async def run(self) -> Proven:
        async with (
            showing(self._scene, self._cast.console, self._cast.clock) as screen,
            asyncio.TaskGroup() as tasks,
        ):
            saboteur = self._saboteur(tasks)
            faults = Faults(saboteur.on_save, saboteur.divert, POST_LATENCY_S)
            async with fault_proxy(self._site.url, ledger.SAVES, self._cast.clock, faults) as proxy:
                looking = tasks.create_task(self._look(screen))
                run_id = await self._mesh.start(self._order(proxy.url))
                self._scene.page = self._mesh.page(run_id)
                progress = await self._follow(run_id, screen, tasks)
            await saboteur.all_back()
            looking.cancel()
        return await self._conclude(run_id, progress, saboteur, proxy)

    def _saboteur(self, tasks: asyncio.TaskGroup) -> Saboteur:
        scene = self._scene
        return Saboteur(
            plan_for(self._invoices, records.LIMIT),
            self._mesh,
            self._cast.clock,
            tasks,
            announce=scene.announce,
            recovered=scene.recovered,
            lied=scene.lied,
            decoy=self._decoy.caught_up,
        )

    def _order(self, site: str) -> Order:
        return Order(
            rows=self._csv,
            site=site,
            form_path=ledger.FORM_PATH,
            list_path=ledger.LIST_PATH + "?q={key}",
            username=self._site.account.username,
            approve_above=str(records.LIMIT),
        )

    async def _follow(self, run_id: str, screen: Screen, tasks: asyncio.TaskGroup) -> Progress:
        latest = Progress("starting", {})
        async with asyncio.timeout(RUN_S) as deadline:
            async for latest in self._mesh.progress(run_id):
                self._scene.hear(latest)
                for question in latest.questions:
                    if question.approval_id not in self._asked:
                        self._asked.add(question.approval_id)
                        tasks.create_task(self._ask(question, deadline))
                screen.refresh()
        return latest

    async def _ask(self, question: Question, deadline: asyncio.Timeout) -> None:
        number = self._about(question)
        asked = self._cast.clock.monotonic()
        deadline.reschedule(None)
        self._scene.asked(question, number)
        answer = await self._cast.person.answer()
        deadline.reschedule(asyncio.get_running_loop().time() + RUN_S)
        self._waited_s += self._cast.clock.monotonic() - asked
        self._answers[question.approval_id] = answer.granted
        if not answer.granted:
            self._denied.add(number)
        self._scene.answered(number, granted=answer.granted, by=answer.by)
        await self._mesh.decide(question, granted=answer.granted)

    def _about(self, question: Question) -> str:
        """The record that a question is about: the one it names, else the one above the limit."""
        named = [invoice.number for invoice in self._invoices if invoice.number in question.summary]
        above = [invoice.number for invoice in self._invoices if invoice.amount > records.LIMIT]
        return (named or above)[0]

    async def _look(self, screen: Screen) -> None:
        while True:
            self._scene.see(await self._mesh.pids())
            screen.refresh()
            await self._cast.clock.sleep(LOOK_S)

    async def _conclude(self, run_id: str, progress: Progress, saboteur: Saboteur, proxy: FaultProxy) -> Proven:
        judgement = judge(self._site.database, self._invoices)
        evidence = Evidence(
            records=len(self._invoices),
            judgement=judgement,
            kills=saboteur.kills,
            lies=saboteur.lies,
            answers=self._answers,
            denied=frozenset(self._denied),
            progress=progress,
            seconds=self._cast.clock.monotonic() - self._scene.began - self._waited_s,
            report=self._cast.folder / "report.html",
        )
        material = Material(
            rows=self._scene.rows,
            saves=proxy.seen,
            csv=self._csv,
            database=self._site.database,
            artifacts=await self._mesh.artifacts(run_id, self._cast.folder / "artifacts"),
            page=self._scene.page,
            seed=self._cast.seed,
        )
        write_report(evidence, material)
        return Proven(evidence, self._scene.rows, self._scene.page, self._mesh.door(run_id))
