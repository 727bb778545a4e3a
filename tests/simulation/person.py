"""A person with a client: watches every run, and pauses, resumes, cancels, answers at moments of chance."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from control.core.moments import ms_of
from control.core.run import RunFold, terminal
from control.journal import ApprovalDecision, ApprovalStatus, Command, Journal, NewRun
from control.journal.folding import event_of
from infra.errors import SkyError
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st
from tests.simulation.machines import Machine, Surroundings, opened

_PAUSE, _RESUME = cmd.Command(pause=cmd.PauseCommand()), cmd.Command(resume=cmd.ResumeCommand())


class Person(Machine):
    """Never dies. What it sees of runs comes by the journal's tail, as for any watcher."""

    def __init__(self, around: Surroundings, runs: list[NewRun], watched: Callable[[ev.RunEvent], None]) -> None:
        super().__init__("person", around)
        self.runs, self.watched = runs, watched
        self.seen: dict[str, RunFold] = {}
        self.ended = asyncio.Event()
        self.journal: Journal
        self._paused: set[str] = set()

    async def live(self) -> None:
        _, self.journal = opened(self.around, self.clock)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.journal.hear())  # pyright: ignore -- of the SQL journal
            for new in self.runs:
                group.create_task(self._wants(new))
            acting = group.create_task(self._act())
            await self.ended.wait()
            acting.cancel()

    async def _wants(self, new: NewRun) -> None:
        await asyncio.sleep(self.around.chance.uniform(0, 2))
        await self.journal.create_run(new)
        folded = self.seen[new.run_id] = RunFold()
        tail = self.journal.tail(new.run_id)
        async for stored in tail:
            event = event_of(stored)
            self.watched(event)
            folded.apply(event)
            if terminal(folded.state.phase):
                break
        if len(self.seen) == len(self.runs) and all(terminal(each.state.phase) for each in self.seen.values()):
            self.ended.set()

    def pauses(self, run_id: str) -> None:
        """At once."""
        if self.process is not None:
            self.around.loop.create_task(self._say(run_id, _PAUSE), context=self.process.context())

    async def _act(self) -> None:
        chance, world = self.around.chance, self.around.world
        while True:
            await asyncio.sleep(0.5 if world.calm else chance.expovariate(1))
            for run_id, folded in list(self.seen.items()):
                if not terminal(folded.state.phase):
                    await self._look_at(run_id, folded)

    async def _look_at(self, run_id: str, folded: RunFold) -> None:
        state, calm, chance = folded.state, self.around.world.calm, self.around.chance
        if state.pause_wanted:
            if calm or chance.random() < 0.5:
                await self._say(run_id, _RESUME)
        elif not calm and chance.random() < 0.15:
            await self._say(run_id, _PAUSE)
            if chance.random() < 0.3:
                await self._say(run_id, _RESUME)
        elif not calm and chance.random() < 0.02:
            cancel = cmd.CancelCommand(reason="enough")
            cancel.grace.FromMilliseconds(chance.choice((0, 200, 5000)))
            await self._say(run_id, cmd.Command(cancel=cancel))
        for asked in state.approvals:
            if asked.state == ev.APPROVAL_STATE_PENDING and (calm or chance.random() < 0.4):
                await self._answer(run_id, asked)
        for node in state.nodes:
            unclear = node.node.HasField("step") and node.state == ev.NODE_STATE_UNCERTAIN
            if unclear and (calm or chance.random() < 0.2):
                await self._resolve(run_id, node)

    async def _answer(self, run_id: str, asked: st.ApprovalRecord) -> None:
        granted = self.around.chance.random() < 0.85
        status = ApprovalStatus.GRANTED if granted else ApprovalStatus.DENIED
        decision = ApprovalDecision(asked.approval_id, status, action_digest=asked.action_digest)
        await self._say(run_id, cmd.Command(decide=cmd.DecideCommand(approval_id=asked.approval_id)), decision)

    async def _resolve(self, run_id: str, node: st.NodeRecord) -> None:
        """Looks at the world, once what may still be on its way has arrived, and says what is true."""
        finished = ms_of(node.attempts[-1].finish_time)
        if self.around.loop.time() < 4 or finished == 0:
            return
        await asyncio.sleep(2)
        key = node.node.step.action.browser.click.expect[0].value
        effect = eff.EFFECT_DONE if self.around.world.effects[key] else eff.EFFECT_NONE
        resolve = cmd.ResolveCommand(step_id=node.node.node_id, effect=effect, note="I looked")
        await self._say(run_id, cmd.Command(resolve=resolve))

    async def _say(self, run_id: str, command: cmd.Command, decision: ApprovalDecision | None = None) -> None:
        kind = (command.WhichOneof("kind") or "").upper()
        self.around.told(f"person: {kind} {run_id[-4:]}")
        payload = command.SerializeToString(deterministic=True)
        try:
            await self.journal.command(Command(self.ids.uuid(), run_id, "default", kind, "ann", payload, decision))
        except SkyError as refused:
            self.around.told(f"person: refused {refused.reason}")
