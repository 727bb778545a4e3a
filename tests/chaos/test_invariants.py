"""Every invariant can be seen to fail: a history in which it does not hold is reported, and a sound one is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from control.core.run import FOLD_VERSION
from control.journal import Command, EventDraft, NewRun, Projection, open_journal
from execution.attempts import AttemptKey, Fence
from execution.journal import open_journal as open_worker_journal
from infra.blobs import open_blobs
from infra.clock import SystemClock
from infra.db import open_database
from infra.digest import digest_of
from infra.disk import held
from infra.ids import system_ids
from infra.processes import spawn
from infra.settings import Settings
from skyagent.common.v1.blob_pb2 import BlobRef
from skyagent.execution.v1 import action_pb2 as act
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import event_pb2 as ev
from tests.chaos.invariants import Campaign, Rule, Sent, violations
from tests.chaos.remains import Attempt

CLOCK = SystemClock()
IDS = system_ids(CLOCK)
RUN = "01M86GH8EF97SMAJ6YBWWRZRYR"
ATTEMPT = Attempt(RUN, "S", 1)
SEEN = b"seen"

History = list[ev.EventBody]


def intended(approval_id: str = "", attempt: int = 1, digest: str = "b3:action") -> ev.EventBody:
    body = ev.StepIntended(step_id="S", attempt=attempt, action_digest=digest, approval_id=approval_id)
    return ev.EventBody(step_intended=body)


def finished(attempt: int = 1, *, reason: str = "", evidence: BlobRef | None = None) -> ev.EventBody:
    blob = evidence or BlobRef(digest=digest_of(SEEN), size=len(SEEN))
    outcome = act.Outcome(status=act.OUTCOME_STATUS_OK, blobs=[blob], reason=reason)
    return ev.EventBody(step_finished=ev.StepFinished(step_id="S", attempt=attempt, outcome=outcome))


def asked(approval_id: str) -> list[ev.EventBody]:
    request = ev.ApprovalRequested(approval_id=approval_id, step_id="S", action_digest="b3:action")
    decided = ev.ApprovalDecided(approval_id=approval_id, state=ev.APPROVAL_STATE_GRANTED)
    return [ev.EventBody(approval_requested=request), ev.EventBody(approval_decided=decided)]


def told(**kind: cmd.PauseCommand | cmd.ResumeCommand | cmd.CancelCommand) -> ev.EventBody:
    return ev.EventBody(command_applied=ev.CommandApplied(command=cmd.Command(**kind)))  # pyright: ignore[reportArgumentType] -- one of its kinds


BEGUN = ev.EventBody(run_created=ev.RunCreated())
OVER = ev.EventBody(run_finished=ev.RunFinished(evidence=[digest_of(SEEN)]))
WITHDRAWN = ev.EventBody(step_withdrawn=ev.StepWithdrawn(step_id="S", attempt=1))
PAUSED, RESUMED = told(pause=cmd.PauseCommand()), told(resume=cmd.ResumeCommand())
SOUND: History = [BEGUN, *asked("A"), intended("A"), WITHDRAWN, PAUSED, RESUMED, intended(attempt=2), finished(2), OVER]


async def campaign(folder: Path, history: History, *statements: str, terminal: bool = True) -> Campaign:
    """The data of a campaign that wrote this history and stored the one piece of evidence."""
    settings = Settings(data_dir=folder)
    async with (
        open_database(settings.journal_path) as database,
        open_journal(database, clock=CLOCK) as journal,
        open_blobs(settings.blobs_dir) as blobs,
    ):
        await blobs.put(SEEN)
        events = tuple(map(EventDraft.of, history))
        shown = Projection("ANY", b"", terminal=terminal)
        await journal.create_run(NewRun(RUN, "M", "default", FOLD_VERSION, events, IDS.ulid(), projection=shown))
        for statement in statements:
            await database.transact(lambda connection, it=statement: connection.exec_driver_sql(it))
    return Campaign(settings)


async def broken(made: Campaign) -> set[Rule]:
    return {violation.rule for violation in await violations(made)}


async def test_nothing_is_said_of_a_sound_history(tmp_path: Path) -> None:
    made = await campaign(tmp_path, SOUND)
    made.effects, made.recorded = {"P-1": 1}, [Attempt(RUN, "S", 2)]
    made.sent = [Sent(ATTEMPT, 4), Sent(Attempt(RUN, "S", 2), 8)]
    assert await violations(made) == []


@pytest.mark.parametrize(
    ("rule", "history"),
    [
        (Rule.SETTLED, [BEGUN, intended(), OVER, finished()]),
        (Rule.SETTLED, [BEGUN, intended(), OVER]),
        (Rule.CONTROL, [BEGUN, PAUSED, intended(), finished(), OVER]),
        (Rule.CONTROL, [BEGUN, told(cancel=cmd.CancelCommand()), RESUMED, intended(), finished(), OVER]),
        (Rule.APPROVALS, [BEGUN, *asked("A"), intended("A"), WITHDRAWN, intended("A", 2), finished(2), OVER]),
        (Rule.APPROVALS, [BEGUN, asked("A")[0], intended("A"), finished(), OVER]),
        (Rule.APPROVALS, [BEGUN, *asked("A"), intended("A", digest="b3:other"), finished(), OVER]),
        (Rule.BYTES, [BEGUN, intended(), finished(evidence=BlobRef(digest=digest_of(b"gone"), size=4)), OVER]),
        (Rule.BYTES, [BEGUN, intended(), finished(evidence=BlobRef(digest=digest_of(SEEN), size=5)), OVER]),
        (Rule.BYTES, [BEGUN, ev.EventBody(run_finished=ev.RunFinished(evidence=[digest_of(b"gone")]))]),
    ],
)
async def test_a_history_that_breaks_a_rule_is_reported(tmp_path: Path, rule: Rule, history: History) -> None:
    assert await broken(await campaign(tmp_path, history)) == {rule}


@pytest.mark.parametrize(
    ("rule", "statement"),
    [
        (Rule.GAPLESS, "DELETE FROM run_events WHERE seq = 3"),
        (Rule.GAPLESS, "DELETE FROM run_events WHERE seq = 10"),
        (Rule.GAPLESS, "UPDATE run_events SET payload = x'' WHERE seq = 6"),
        (Rule.EPOCHS, "UPDATE run_events SET epoch = 1 WHERE seq < 6"),
        (Rule.EPOCHS, "UPDATE run_events SET epoch = 1 WHERE seq >= 6"),
        (Rule.ENDS, "UPDATE runs SET terminal = 0"),
    ],
)
async def test_a_journal_that_was_tampered_with_is_reported(tmp_path: Path, rule: Rule, statement: str) -> None:
    assert rule in await broken(await campaign(tmp_path, SOUND, statement))


async def test_an_intent_that_does_not_know_a_command_given_before_it_is_reported(tmp_path: Path) -> None:
    made = await campaign(tmp_path, SOUND, terminal=False)
    async with open_database(made.settings.journal_path) as db, open_journal(db, clock=CLOCK) as journal:
        await journal.command(Command(IDS.uuid(), RUN, "default", "PAUSE", "ann"))
        await db.transact(lambda c: c.exec_driver_sql("UPDATE run_commands SET applied_seq = 9, created_ms = 1"))
    assert await broken(made) == {Rule.CONTROL, Rule.ENDS}


def _doubled(made: Campaign) -> None:
    made.effects = {"P-1": 2}


def _seen_otherwise(made: Campaign) -> None:
    made.watched(ev.RunEvent(run_id=RUN, seq=1, hash="b3:other"))


def _sent_in_a_pause(made: Campaign) -> None:
    made.sent = [Sent(ATTEMPT, 6)]


def _lost(made: Campaign) -> None:
    made.recorded = [ATTEMPT]


@pytest.mark.parametrize(
    ("rule", "saw"),
    [
        (Rule.ONCE, _doubled),
        (Rule.ONE_HASH, _seen_otherwise),
        (Rule.CONTROL, _sent_in_a_pause),
        (Rule.OUTCOMES, _lost),
    ],
)
async def test_what_world_watchers_wire_and_workers_saw_is_compared(
    tmp_path: Path, rule: Rule, saw: Callable[[Campaign], None]
) -> None:
    made = await campaign(tmp_path, SOUND)
    saw(made)
    assert await broken(made) == {rule}


@pytest.mark.parametrize(("reason", "rules"), [("", set[Rule]()), ("LOG_BEHIND", {Rule.OUTCOMES})])
async def test_an_owners_word_for_a_worker_is_not_taken_for_the_workers_outcome(
    tmp_path: Path, reason: str, rules: set[Rule]
) -> None:
    made = await campaign(tmp_path, [BEGUN, intended(), finished(reason=reason), OVER])
    key, folder = AttemptKey(RUN, "S", 1), made.settings.workers_dir / "noop-1"
    with open_worker_journal(folder, clock=CLOCK, ids=IDS) as journal, journal.transaction():
        journal.begin(key, Fence(0, 1), "b3:action", 1)
        journal.finish(key, act.Outcome(status=act.OUTCOME_STATUS_OK).SerializeToString())
        journal.release(key)
    assert await broken(made) == rules


async def test_what_was_left_behind_is_reported(tmp_path: Path) -> None:
    made = await campaign(tmp_path, SOUND)
    with held(tmp_path / "any.lock"):
        assert await broken(made) == {Rule.LEFTOVERS}
    (made.settings.blobs_dir / "staging" / "draft").touch()
    assert await broken(made) == {Rule.LEFTOVERS}
    (made.settings.blobs_dir / "staging" / "draft").unlink()
    with open_worker_journal(made.settings.workers_dir / "noop-1", clock=CLOCK, ids=IDS):
        (made.settings.workers_dir / "noop-1" / "spool" / RUN / "S.1").mkdir(parents=True)
    assert await broken(made) == {Rule.LEFTOVERS}


async def test_a_process_that_was_left_behind_is_reported(tmp_path: Path) -> None:
    made = await campaign(tmp_path, SOUND)
    made.marker = IDS.uuid()
    child = await spawn(["sleep", "60"], CLOCK, env=dict(os.environ), marker=made.marker)
    assert await broken(made) == {Rule.LEFTOVERS}
    await child.stop(0)
    assert await broken(made) == set()
