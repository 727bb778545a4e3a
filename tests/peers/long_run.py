"""How long it takes to open a run of 100,000 events, from the snapshot that its owner kept at its end."""

import asyncio
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from control.core.run import FOLD_VERSION, RunFold
from control.journal import EventDraft, NewRun, Snapshot, open_journal
from control.journal.folding import event_of, folded_run
from infra.clock import SystemClock
from infra.db import open_database
from infra.digest import digest_of
from infra.ids import Ids, system_ids
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.policy.v1 import decision_pb2 as pol
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan

STEPS = 25_000
PLANNED_TOGETHER = 200
TIMES = 5
REQUEST = b"x" * 900
"""What policy is asked about a no-op step takes about so many bytes."""


def seconds_to_open(folder: Path) -> tuple[float, int]:
    """The median, and how many events the run has."""
    return asyncio.run(_opened(folder))


async def _opened(folder: Path) -> tuple[float, int]:
    clock = SystemClock()
    ids = system_ids(clock)
    async with open_database(folder / "long.db") as db, open_journal(db, clock=clock) as journal:
        run_id = ids.ulid()
        drafts = tuple(EventDraft.of(body) for body in events(ids))
        await journal.create_run(NewRun(run_id, ids.ulid(), "default", FOLD_VERSION, drafts, ids.ulid()))
        folded, seq = RunFold(), 0
        while page := await journal.read(run_id, after_seq=seq, limit=1000):
            for stored in page:
                folded.apply(event_of(stored))
            seq = folded.state.seq
        await journal.save_snapshot(
            Snapshot(run_id, seq, FOLD_VERSION, folded.state.SerializeToString(deterministic=True))
        )
        took: list[float] = []
        for _ in range(TIMES):
            start = time.perf_counter()
            opened = await folded_run(journal, run_id)
            took.append(time.perf_counter() - start)
            assert opened.folded.state.counts.steps_succeeded == STEPS
    return statistics.median(took), seq


def events(ids: Ids) -> Iterator[ev.EventBody]:
    """A run of no-op steps, as its owner writes them: judged, intended, finished, validated."""
    yield ev.EventBody(run_created=ev.RunCreated(mission_id=ids.ulid(), tenant="default", fold_version=FOLD_VERSION))
    for _ in range(0, STEPS, PLANNED_TOGETHER):
        steps = [plan.PlanNode(node_id=ids.ulid(), title="no-op", step=plan.Step()) for _ in range(PLANNED_TOGETHER)]
        yield ev.EventBody(plan_extended=ev.PlanExtended(nodes=steps, planner="template self_test 1"))
        for step in steps:
            yield from _tried(step.node_id, ids)


def _tried(step_id: str, ids: Ids) -> Iterator[ev.EventBody]:
    digest = digest_of(step_id.encode())
    decision = pol.Decision(decision_id=ids.ulid(), verdict=pol.VERDICT_ALLOW, request=REQUEST, policy_ids=["permit"])
    yield ev.EventBody(policy_decided=ev.PolicyDecided(step_id=step_id, attempt=1, decision=decision))
    intended = ev.StepIntended(step_id=step_id, attempt=1, worker_id="noop-1", journal_id=ids.uuid())
    intended.action_digest, intended.effect_class = digest, eff.EFFECT_CLASS_IDEMPOTENT
    yield ev.EventBody(step_intended=intended)
    outcome = act.Outcome(status=act.OUTCOME_STATUS_OK, effect=eff.EFFECT_DONE)
    yield ev.EventBody(step_finished=ev.StepFinished(step_id=step_id, attempt=1, outcome=outcome))
    yield ev.EventBody(step_validated=ev.StepValidated(step_id=step_id, attempt=1, holds=plan.HOLDS_YES))
