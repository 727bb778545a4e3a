"""What must be true after every campaign, whatever was killed: read from the disk, by no code that decides anything.

A campaign hands over what it alone knows: what the world, the watchers and the wire saw. Everything else is what the
dead processes left behind. Nothing may hold the data directory any more.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum

import sqlalchemy as sa
from google.protobuf.message import Message

from control.journal import Journal, RunHead, open_journal
from control.journal.folding import event_of
from control.journal.schema import run_commands
from infra.blobs import BlobStore, open_blobs
from infra.clock import SystemClock
from infra.db import Database, open_database, open_postgres
from infra.errors import SkyError
from infra.settings import Settings
from skyagent.common.v1.blob_pb2 import BlobRef
from skyagent.run.v1 import event_pb2 as ev
from tests.chaos.remains import Attempt, Remains, leftovers, remains


class Rule(StrEnum):
    """The invariants, by the words of ARCHITECTURE."""

    GAPLESS = "the journal is gapless and its chain holds"
    EPOCHS = "epochs are monotone"
    ONE_HASH = "one hash for each seq, also as seen by every watcher"
    ONCE = "what may happen once happens at most once"
    CONTROL = "nothing is assigned after its owner saw a pause"
    OUTCOMES = "every outcome that a worker recorded reaches the log or stays held"
    SETTLED = "no run ends with an open intent"
    APPROVALS = "no approval is used twice"
    BYTES = "every digest that an event names is readable"
    ENDS = "every accepted mission ends"
    LEFTOVERS = "no process, lock or folder is left"


@dataclass(frozen=True)
class Violation:
    """One rule that does not hold, and where."""

    rule: Rule
    detail: str


@dataclass(frozen=True)
class Sent:
    """An Assign as it left the control plane, and how far its owner had folded the run at that moment."""

    attempt: Attempt
    seq: int


@dataclass
class Campaign:
    """What only the campaign knows."""

    settings: Settings
    effects: Mapping[str, int] = field(default_factory=dict[str, int])
    """How often the world saw each effect that may happen once."""
    seen: dict[tuple[str, int], set[str]] = field(default_factory=lambda: defaultdict[tuple[str, int], set[str]](set))
    """The hashes that watchers saw, by run and seq."""
    sent: Iterable[Sent] = ()
    recorded: Iterable[Attempt] = ()
    """Attempts whose outcome a worker journalled."""
    marker: str = ""
    """Marks every process of the campaign."""
    going_on: frozenset[str] = frozenset()
    """Runs that the campaign meant to leave before their end."""
    database_url: str = ""
    """Of the PostgreSQL that the control planes shared; none means SQLite in the data folder."""
    clocks_agree: bool = True
    """Whether no clock was set, so that the moments which processes wrote down can be compared."""

    def watched(self, event: ev.RunEvent) -> None:
        """A watcher saw an event."""
        self.seen[event.run_id, event.seq].add(event.hash)


@dataclass(frozen=True)
class Told:
    """One run as its journal tells it; `commands` holds for each applied_seq when that command was given."""

    head: RunHead
    events: tuple[ev.RunEvent, ...]
    commands: tuple[tuple[int, int], ...]

    def of(self, *kinds: str) -> Iterator[ev.RunEvent]:
        return (event for event in self.events if event.body.WhichOneof("kind") in kinds)


async def violations(campaign: Campaign) -> list[Violation]:
    """Everything that does not hold; an empty list is what a campaign must end with."""
    left = [Violation(Rule.LEFTOVERS, what) for what in leftovers(campaign.settings, campaign.marker)]
    if left:
        return left  # whoever still runs still writes
    kept = remains(campaign.settings, campaign.recorded)
    async with (
        _database(campaign) as database,
        open_journal(database, clock=SystemClock()) as journal,
        open_blobs(campaign.settings.blobs_dir) as blobs,
    ):
        return await violations_in(Stores(database, journal, blobs), campaign, kept)


def _database(campaign: Campaign) -> AbstractAsyncContextManager[Database]:
    if campaign.database_url:
        return open_postgres(campaign.database_url, who="invariants")
    return open_database(campaign.settings.journal_path)


@dataclass(frozen=True)
class Stores:
    """What a control plane kept."""

    database: Database
    journal: Journal
    blobs: BlobStore

    async def runs(self) -> list[Told]:
        """Every run."""
        return [await _told(self.database, self.journal, head) for head in await self.journal.heads()]


async def violations_in(stores: Stores, campaign: Campaign, kept: Remains) -> list[Violation]:
    """The same of stores that are open, and of what the workers' journals say."""
    runs = await stores.runs()
    found = [violation for run in runs for violation in _of_run(run, campaign, kept)]
    for run in runs:
        found += [violation async for violation in _stored(run, stores.journal, stores.blobs)]
    return found + list(_of_world(campaign, kept, {run.head.run_id for run in runs}))


async def _told(database: Database, journal: Journal, head: RunHead) -> Told:
    chosen = sa.select(run_commands.c.applied_seq, run_commands.c.created_ms).where(
        run_commands.c.run_id == head.run_id, run_commands.c.applied_seq.is_not(None)
    )
    rows = await database.read(lambda connection: connection.execute(chosen).all())
    events = await journal.read(head.run_id, limit=1_000_000)
    return Told(head, tuple(map(event_of, events)), tuple((row.applied_seq, row.created_ms) for row in rows))


def _of_run(run: Told, campaign: Campaign, kept: Remains) -> Iterator[Violation]:
    yield from _named(Rule.EPOCHS, run, _epochs(run))
    yield from _named(Rule.ONE_HASH, run, _watched(run, campaign))
    yield from _named(Rule.CONTROL, run, _controlled(run, campaign))
    yield from _named(Rule.OUTCOMES, run, _reported(run, kept))
    yield from _named(Rule.SETTLED, run, _settled(run))
    yield from _named(Rule.APPROVALS, run, _approved(run))
    if not run.head.terminal and run.head.run_id not in campaign.going_on:
        yield from _named(Rule.ENDS, run, ["it has not ended"])


def _named(rule: Rule, run: Told, details: Iterable[str]) -> Iterator[Violation]:
    return (Violation(rule, f"run {run.head.run_id}: {detail}") for detail in details)


def _of_world(campaign: Campaign, kept: Remains, runs: set[str]) -> Iterator[Violation]:
    for effect, times in campaign.effects.items():
        if times > 1:
            yield Violation(Rule.ONCE, f"{effect} happened {times} times")
    for attempt in kept.told:
        if attempt.run_id not in runs:
            yield Violation(Rule.OUTCOMES, f"the journal has no run for {attempt}")


def _epochs(run: Told) -> Iterator[str]:
    before = 0
    for event in run.events:
        if event.epoch < before:
            yield f"event {event.seq} is of epoch {event.epoch}, after one of epoch {before}"
        before = max(before, event.epoch)
    if before > run.head.epoch:
        yield f"an event is of epoch {before}, the run only of {run.head.epoch}"


def _watched(run: Told, campaign: Campaign) -> Iterator[str]:
    durable = {event.seq: event.hash for event in run.events}
    for (run_id, seq), hashes in campaign.seen.items():
        if run_id == run.head.run_id and hashes != {durable.get(seq)}:
            yield f"event {seq} was seen as {sorted(hashes)} and is {durable.get(seq)}"


def _controlled(run: Told, campaign: Campaign) -> Iterator[str]:
    """Intents by the journal, assigns by what was sent: neither once the owner knew that none was wanted."""
    stopped = dict(_stops(run))
    for event in run.of("step_intended"):
        if stopped[event.seq]:
            yield f"event {event.seq} is an intent while a pause or a cancellation is wanted"
        for applied_seq, given_ms in run.commands if campaign.clocks_agree else ():
            if event.seq < applied_seq and event.time.ToMilliseconds() > given_ms:
                yield f"event {event.seq} is an intent that does not know the command applied at {applied_seq}"
    for sent in campaign.sent:
        if sent.attempt.run_id == run.head.run_id and stopped.get(sent.seq, False):
            yield f"{sent.attempt} was sent by an owner that had folded {sent.seq} events, a pause among them"


def _stops(run: Told) -> Iterator[tuple[int, bool]]:
    paused = cancelled = False
    for event in run.events:
        kind = event.body.command_applied.command.WhichOneof("kind")
        paused = kind == "pause" or (paused and kind != "resume")
        cancelled = cancelled or kind == "cancel"
        yield event.seq, paused or cancelled


def _reported(run: Told, kept: Remains) -> Iterator[str]:
    """Only the worker's own word counts: that an owner took an attempt for lost is no outcome.

    What nobody asked for before the run ended may go with it.
    """
    reported = {
        Attempt(run.head.run_id, body.step_id, body.attempt)
        for event in run.of("step_finished", "late_result")
        if (body := event.body.late_result if event.body.HasField("late_result") else event.body.step_finished)
        and body.outcome.reason not in ("LOG_BEHIND", "WORKER_AWAY")
    }
    given_up = {
        Attempt(run.head.run_id, body.step_id, body.attempt)
        for event in run.of("step_finished", "step_uncertain")
        if (body := event.body.step_uncertain if event.body.HasField("step_uncertain") else event.body.step_finished)
        and (event.body.HasField("step_uncertain") or event.body.step_finished.outcome.reason == "WORKER_AWAY")
    }
    excused = given_up if run.head.terminal else set[Attempt]()
    for attempt in kept.told - kept.held - reported - excused:
        if attempt.run_id == run.head.run_id:
            yield f"the outcome of {attempt} is neither in the log nor held by its worker"


def _settled(run: Told) -> Iterator[str]:
    intents: set[tuple[str, int]] = set()
    for event in run.events:
        kind = event.body.WhichOneof("kind")
        if kind == "step_intended":
            intents.add((event.body.step_intended.step_id, event.body.step_intended.attempt))
        elif kind in ("step_finished", "step_withdrawn", "step_uncertain"):
            closed = getattr(event.body, kind)
            intents.discard((closed.step_id, closed.attempt))
        elif kind == "run_finished" and intents:
            yield f"it ended with {len(intents)} open intents"
    if intents and run.head.terminal:
        yield f"it is over and has {len(intents)} open intents"


def _approved(run: Told) -> Iterator[str]:
    granted = {
        event.body.approval_decided.approval_id
        for event in run.of("approval_decided")
        if event.body.approval_decided.state == ev.APPROVAL_STATE_GRANTED
    }
    asked = {event.body.approval_requested.approval_id: event for event in run.of("approval_requested")}
    used = [event.body.step_intended for event in run.of("step_intended") if event.body.step_intended.approval_id]
    for approval_id, times in Counter(intent.approval_id for intent in used).items():
        if times > 1:
            yield f"approval {approval_id} was used {times} times"
    for intent in used:
        question = asked.get(intent.approval_id)
        if question is None or intent.approval_id not in granted:
            yield f"approval {intent.approval_id} was used without a yes"
        elif question.body.approval_requested.action_digest != intent.action_digest:
            yield f"approval {intent.approval_id} was used for another action"


async def _stored(run: Told, journal: Journal, blobs: BlobStore) -> AsyncIterator[Violation]:
    """What needs the stores: the chain, and every byte that an event names."""
    verified = await journal.verify(run.head.run_id)
    if verified.bad_seq is not None or [event.seq for event in run.events] != list(range(1, run.head.head_seq + 1)):
        detail = f"event {verified.bad_seq}: {verified.reason}" if verified.reason else "its events do not count up"
        yield Violation(Rule.GAPLESS, f"run {run.head.run_id}: {detail}")
    for event in run.events:
        for digest, size in _digests(event.body):
            try:
                data = await blobs.get(digest)
            except SkyError as missing:
                yield Violation(Rule.BYTES, f"run {run.head.run_id}, event {event.seq}: {missing}")
            else:
                if size is not None and size != len(data):
                    detail = f"{digest} has {len(data)} bytes, the event says {size}"
                    yield Violation(Rule.BYTES, f"run {run.head.run_id}, event {event.seq}: {detail}")


def _digests(message: Message) -> Iterator[tuple[str, int | None]]:
    if isinstance(message, BlobRef):
        if message.digest:
            yield message.digest, message.size
        return
    for descriptor, value in message.ListFields():
        if descriptor.name == "evidence" and descriptor.message_type is None:
            yield from ((digest, None) for digest in value)
        elif descriptor.message_type is not None and not descriptor.message_type.GetOptions().map_entry:
            for part in value if descriptor.is_repeated else (value,):
                yield from _digests(part)
