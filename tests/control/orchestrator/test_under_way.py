"""What is folded before it is durable: nobody may hear of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

from control.core.run import FOLD_VERSION
from control.journal import Append, Appended, Journal, Node, open_journal
from control.orchestrator.attempts import Attempts
from control.orchestrator.judging import Judge
from control.orchestrator.ledger import Ledger
from control.orchestrator.links import LocalLink, WorkerLinks
from control.orchestrator.open_intents import OpenIntents
from control.orchestrator.results import Results
from infra.db import open_database
from infra.mesh import Runtime
from infra.telemetry import telemetry
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.execution.v1 import worker_service_pb2 as wire
from skyagent.run.v1 import event_pb2 as ev
from tests.control.orchestrator.harness import CLOCK, IDS, ControlPlane, noop, settings_in


class Stalled:
    """A journal whose appends wait until they may go on."""

    def __init__(self, journal: Journal) -> None:
        self.journal, self.reached, self.go_on = journal, asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> object:
        return getattr(self.journal, name)

    async def append(self, append: Append) -> Appended:
        self.reached.set()
        await self.go_on.wait()
        return await self.journal.append(append)


async def test_an_intent_whose_commit_is_under_way_is_not_sent_by_recovery(tmp_path: Path) -> None:
    """A result is recorded beside the driver: what joins its commit is folded before it is durable."""
    settings = settings_in(tmp_path)
    async with (
        open_database(settings.journal_path) as database,
        open_journal(database, clock=CLOCK) as journal,
        telemetry(settings, "test", IDS) as spans,
    ):
        run_id = await ControlPlane(cast("Runtime", None), journal).start([noop("post", eff.EFFECT_CLASS_ONCE)])
        (head,) = await journal.claim(Node("node-1", IDS.uuid()), fold_version=FOLD_VERSION, limit=1)
        stalled = Stalled(journal)
        ledger = Ledger(cast("Journal", stalled), CLOCK, IDS, head)
        await ledger.load()
        link = LocalLink(wire.Hello(worker_id="noop-1", journal_id="J"), "session", 0.0, credits=4)
        links = WorkerLinks({"noop-1": link})
        attempts = Attempts(ledger, links, cast("Judge", None), CLOCK, IDS, spans)
        intents = OpenIntents(ledger, links, attempts, cast("Results", None), CLOCK, settings.lease, 0.0)
        step_id = ledger.state.nodes[0].node.node_id
        intended = ev.StepIntended(step_id=step_id, attempt=1, worker_id="noop-1", journal_id="J")
        async with asyncio.TaskGroup() as group:
            group.create_task(ledger.commit_now(lambda _: (ev.EventBody(step_intended=intended),)))
            await stalled.reached.wait()
            assert ledger.folded.open_attempts()
            await intents.settle()
            assert not link.outbox
            stalled.go_on.set()
        await intents.settle()
        (frame,) = await link.outbox.take(1)
    assert (frame.assign.key.run_id, frame.assign.key.step_id) == (run_id, step_id)
