"""One schedule: everything that a seed decides, from the first process to the last invariant."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

import sqlalchemy as sa
from blake3 import blake3
from sqlalchemy import Connection

from control.core.run import INTERNAL_ERROR, LOG_BEHIND
from control.journal import Command, CommandReceipt
from control.journal.queries import commands
from control.journal.schema import runs
from control.orchestrator.attempts import Attempts
from control.orchestrator.links import Key, WorkerLink
from execution.attempts import AttemptKey, Record
from execution.journal import Journal as WorkerJournal
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.execution.v1 import worker_service_pb2 as wire
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st
from tests.chaos.invariants import Campaign, Rule, Sent, Stores, Told, Violation, violations_in
from tests.chaos.remains import Attempt, remains_of, rows_in
from tests.simulation.loop import PROCESS, Ended, Process, VirtualLoop
from tests.simulation.machines import (
    SETTINGS,
    ControlPlane,
    Killed,
    Machine,
    Surroundings,
    WorkerMachine,
    dialling,
    opened,
    surroundings,
)
from tests.simulation.missions import AT_MOST_ONCE, new_run
from tests.simulation.network import KEEPALIVE, Network
from tests.simulation.person import Person
from tests.simulation.store import Disk, News
from tests.simulation.world import World

MISFORTUNES: Final = (
    "kill",
    "kill",
    "kill",
    "drain",
    "freeze",
    "freeze",
    "part",
    "reset",
    "reset",
    "jump",
    "slow",
    "withhold",
)
PATIENCE: Final = 300.0
"""Virtual seconds that everything may take to end once the faults are over."""
_NOT_TWICE = (eff.EFFECT_CLASS_ONCE, eff.EFFECT_CLASS_PROBEABLE)
_TRACE: ContextVar[Trace] = ContextVar("trace")


@dataclass
class Trace:
    """What happened, in order: the digest of two runs of one seed is the same."""

    lines: list[str] = field(default_factory=list[str])
    sent: list[Sent] = field(default_factory=list[Sent])
    recorded: list[Attempt] = field(default_factory=list[Attempt])
    commanded: dict[str, int] = field(default_factory=dict[str, int])
    """How far its run had come when a command was committed."""

    @property
    def digest(self) -> str:
        return blake3("\n".join(self.lines).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Report:
    """What came of a schedule."""

    seed: int
    violations: tuple[Violation, ...]
    trace: Trace
    virtual_seconds: float
    effects: int
    uncertain: int


def run(seed: int, disk: Disk, folder: Path, misfortunes: Sequence[str] = MISFORTUNES) -> Report:
    """Runs a schedule to its end. The folder is used and emptied."""
    trace = Trace()
    try:
        return copy_context().run(_run, seed, disk, folder, trace, misfortunes)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(seed: int, disk: Disk, folder: Path, trace: Trace, misfortunes: Sequence[str]) -> Report:
    _TRACE.set(trace)
    disk.empty()
    return Schedule(seed, disk, folder, trace, misfortunes).run()


class Schedule:
    """The processes, and what befalls them."""

    def __init__(self, seed: int, disk: Disk, folder: Path, trace: Trace, misfortunes: Sequence[str]) -> None:
        self.misfortunes = misfortunes
        self.seed, self.disk, self.trace, self.chance = seed, disk, trace, Random(seed)
        self.loop = VirtualLoop(self.chance)
        self.campaign = Campaign(SETTINGS, clocks_agree=False)
        network = Network(self.loop, self.chance, self.told)
        news, world = News(self.loop, self.chance), World(self.loop, self.chance, self.told)
        several = self.chance.random() < 0.6
        self.around = Surroundings(
            self.loop, self.chance, network, disk, news, world, folder, several, self.told, Random(seed + 1)
        )
        self.around.blobs().prepare()
        self.nodes = [ControlPlane(f"node-{n + 1}", self.around) for n in range(2 if several else 1)]
        self.around.nodes = frozenset(node.name for node in self.nodes)
        deadly = self.chance.choice((0.0, 0.0, 0.02, 0.05))
        self.workers = [
            WorkerMachine(f"browser-{n + 1}", self.around, deadly) for n in range(self.chance.randint(1, 2))
        ]
        self.chaos = self.chance.uniform(2, 15)
        ids = self.around.ids(self.nodes[0].clock)
        runs = [new_run(self.chance, ids, n) for n in range(self.chance.randint(1, 3))]
        self.person = Person(self.around, runs, self._watched)
        self.around.lost_its_assign = self._lost_its_assign

    def told(self, line: str) -> None:
        self.trace.lines.append(f"{self.loop.time():.6f} {line}")

    def run(self) -> Report:
        for machine in (*self.nodes, *self.workers, self.person):
            machine.start()
        found: list[Violation] = []
        for _ in range(self.chance.randint(2, 10)):
            self._later(self.chance.uniform(0, self.chaos), self._misfortune)
        self._later(self.chaos, self._calm)
        try:
            self.loop.run_until_complete(self._ended(), until=self.chaos + PATIENCE)
        except Ended as late:
            found.append(Violation(Rule.ENDS, f"not everything had ended {late}"))
        for machine in (*self.nodes, *self.workers, self.person):
            machine.kill()
        found += self.loop.run_until_complete(self._checked(), until=1e9)
        found += [Violation(Rule.LEFTOVERS, f"an error that nobody took: {error}") for error in self.loop.errors]
        self.disk.buried.append(self.loop.buried)
        effects = sum(self.around.world.effects.values())
        uncertain = sum(": uncertain" in line for line in self.trace.lines)
        return Report(self.seed, tuple(found), self.trace, self.loop.time(), effects, uncertain)

    async def _ended(self) -> None:
        await self.person.ended.wait()

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        self.loop.call_later(seconds, work, context=self.loop.outside)

    def _watched(self, event: ev.RunEvent) -> None:
        self.campaign.watched(event)
        kind = event.body.WhichOneof("kind")
        self.told(f"event {event.run_id[-4:]} {event.seq} {event.epoch} {kind} {event.hash[:11]}")

    def _misfortune(self) -> None:
        """Something that happens to one of them."""
        if self.around.world.calm:
            return
        node, worker = self.chance.choice(self.nodes), self.chance.choice(self.workers)
        what = self.chance.choice(self.misfortunes)
        someone: Machine = self.chance.choice((node, worker))
        if what in ("kill", "drain"):
            getattr(someone, what)()
            self._later(self.chance.expovariate(1), self._revive)
        elif what == "freeze":
            self._freeze(self.chance.choice((node, node, worker)))
        elif what == "withhold":
            self.around.withholding = True
        elif what == "part":
            self._part(node, self.chance.choice([m for m in (*self.nodes, *self.workers) if m is not node]))
        elif what == "reset":
            self.around.network.break_one()
        elif what == "jump":
            seconds = self.chance.choice((-3600.0, 3600.0, -5.0, 5.0))
            self.told(f"the clock of {someone.name} jumps by {seconds:g} s")
            someone.clock.jump(seconds)
        else:
            self.around.network.slow = self.chance.choice((1, 20, 200))

    def _lost_its_assign(self, process: Process, run_id: str) -> None:
        """A node dies between an intent and its Assign, which is still under way; mostly somebody wants a pause."""
        self.told(f"withheld from {process.name}")
        for node in self.nodes:
            if node.process is process:
                node.kill()
        if self.chance.random() < 0.7:
            self.person.pauses(run_id)
        self._later(self.chance.expovariate(1), self._revive)

    def _revive(self) -> None:
        for machine in (*self.nodes, *self.workers):
            machine.start()

    def _freeze(self, machine: Machine) -> None:
        process = machine.process
        if process is None or not process.alive or process.frozen:
            return
        seconds = self.chance.choice((0.5, 3.0, 5.0, 8.0))
        self.told(f"freeze {machine.name} for {seconds:g} s")
        self.loop.freeze(process)
        self._later(seconds, lambda: self._thaw(machine, process))

    def _thaw(self, machine: Machine, process: Process) -> None:
        if process.alive:
            self.told(f"thaw {machine.name}")
            self.loop.thaw(process)

    def _part(self, one: Machine, other: Machine) -> None:
        pair, network = frozenset((one.name, other.name)), self.around.network
        seconds = self.chance.choice((0.5, 3.0, 10.0, KEEPALIVE + 10))
        self.told(f"part {one.name} from {other.name} for {seconds:g} s")
        network.cut.add(pair)
        self._later(min(seconds, KEEPALIVE), lambda: network.heal(pair, broken=seconds > KEEPALIVE))

    def _calm(self) -> None:
        """No more faults; all that lives goes on, and what does not is started once more."""
        self.told("calm")
        self.around.world.calm = True
        self.around.network.cut.clear()
        self.around.network.slow = 1
        for machine in (*self.nodes, *self.workers):
            if machine.process is not None and machine.process.frozen:
                self.loop.thaw(machine.process)
            if isinstance(machine, WorkerMachine):
                machine.deadly = 0
        self._until_over()

    def _until_over(self) -> None:
        self._revive()
        self._later(1.0, self._until_over)

    async def _checked(self) -> list[Violation]:
        """Everything that the dead left behind."""
        PROCESS.set(Process("reader", self.loop))
        database, journal = opened(self.around, self.person.clock)
        rows = [row for worker in self.workers for row in rows_in(worker.journal_file)]
        kept = remains_of(rows, self.trace.recorded)
        self.campaign.sent = self.trace.sent
        effects = self.around.world.effects
        self.campaign.effects = {key: times for key, times in effects.items() if key.startswith(AT_MOST_ONCE)}
        stores = Stores(database, journal, self.around.blobs())
        found = await violations_in(stores, self.campaign, kept)
        for told in await stores.runs():
            found += [*_broken(told), *self._uncontrolled(told)]
        return found

    def _uncontrolled(self, run: Told) -> Iterator[Violation]:
        """By the order of the commits themselves: between a command and its application nothing is intended."""
        for applied in run.of("command_applied"):
            given = self.trace.commanded[applied.body.command_applied.command_id]
            for event in run.of("step_intended"):
                if given < event.seq < applied.seq:
                    detail = f"event {event.seq} is an intent, event {applied.seq} applies what was said at {given}"
                    yield Violation(Rule.CONTROL, f"run {run.head.run_id}: {detail}")


def _broken(run: Told) -> Iterator[Violation]:
    """What no fault of the simulation excuses."""
    for event in run.of("run_blocked"):
        if event.body.run_blocked.reason in (INTERNAL_ERROR, LOG_BEHIND):
            detail = event.body.run_blocked.detail
            yield Violation(Rule.OUTCOMES, f"run {run.head.run_id}: {event.body.run_blocked.reason}: {detail}")


@contextmanager
def witnessing() -> Generator[None]:
    """Every Assign and every journalled outcome of a simulated process is noted in the trace of its schedule."""
    assigned, finish, record = Attempts.assign, WorkerJournal.finish, commands.record

    def sending(self: WorkerLink, key: Key, assign: wire.Assign) -> None:
        around = surroundings()
        if around.withholding and assign.action.effect_class in _NOT_TWICE and not around.world.calm:
            around.withheld[key] = assign.SerializeToString()
            around.withholding = False
            around.lost_its_assign(PROCESS.get(), key.run_id)
            raise Killed
        send(self, key, assign)

    def answering(self: WorkerLink, key: Key, state: wire.HeldState.ValueType) -> None:
        answered(self, key, state)
        around = surroundings()
        late = around.withheld.pop(key, None) if state == wire.HELD_STATE_NEVER_BEGUN else None
        if late is not None:
            frame = wire.ControlResponse(assign=wire.Assign.FromString(late))
            around.told(f"late: the assign of {key.step_id[-4:]}.{key.attempt}")
            around.loop.call_later(around.chance.uniform(0, 1), self.send, frame)

    def assigning(self: Attempts, link: WorkerLink, record: st.NodeRecord, attempt: st.AttemptRecord) -> None:
        trace, state = _TRACE.get(), self.ledger.state
        trace.sent.append(Sent(Attempt(state.run_id, record.node.node_id, attempt.attempt), state.seq))
        assigned(self, link, record, attempt)

    def finishing(self: WorkerJournal, key: AttemptKey, outcome: bytes) -> Record:
        done = finish(self, key, outcome)
        _TRACE.get().recorded.append(Attempt(key.run_id, key.step_id, key.attempt))
        return done

    def recording(connection: Connection, command: Command, now_ms: int) -> CommandReceipt:
        receipt = record(connection, command, now_ms)
        head = sa.select(runs.c.head_seq).where(runs.c.run_id == command.run_id)
        _TRACE.get().commanded.setdefault(command.cmd_id, int(connection.execute(head).scalar_one()))
        return receipt

    send, answered = WorkerLink.assign, WorkerLink.answered
    WorkerLink.assign, WorkerLink.answered = sending, answering
    Attempts.assign, WorkerJournal.finish, commands.record = assigning, finishing, recording
    try:
        yield
    finally:
        Attempts.assign, WorkerJournal.finish, commands.record = assigned, finish, record
        WorkerLink.assign, WorkerLink.answered = send, answered


@contextmanager
def simulating() -> Generator[Disk]:
    """What every schedule of a process shares."""
    logging.disable(logging.CRITICAL)
    try:
        with witnessing(), dialling():
            yield Disk()
    finally:
        logging.disable(logging.NOTSET)
