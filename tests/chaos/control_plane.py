"""Services of the control plane as a process: `python -m tests.chaos.control_plane WITNESS [FLAG…] NAME…`.

Each flag is a misfortune or a fault that a campaign wants: `--die-at-intent` ends the process, as `kill -9` would,
between the commit of the first post's intent and its Assign. `--withhold FILE` does the same and leaves the Assign to
the network, which `--late FILE` delivers in a later life, once the worker has said that it never began. `--deaf` takes
the result of a post, acknowledges it as the transport does, and dies before it is committed. `--careless` takes what
was lost for what never happened.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from pathlib import Path

from control.core import check
from control.orchestrator.links import Key, LocalLink, WorkerLink
from control.orchestrator.results import Report, Results
from control.orchestrator.stream import WorkerServicer
from control.services import ALL
from infra.log import configure_logging
from infra.mesh import serve
from infra.settings import load_settings
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.execution.v1 import worker_service_pb2 as wire
from skyagent.run.v1 import state_pb2 as st
from tests.chaos.witness import witness_assigns

_DEAF_FOR = 3
"""Heartbeats: the first answer already acknowledges the result."""


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_at_intent(withheld: Path | None) -> None:
    send = WorkerLink.assign

    def dying(self: WorkerLink, key: Key, assign: wire.Assign) -> None:
        if assign.action.effect_class == eff.EFFECT_CLASS_ONCE:
            if withheld is not None:
                withheld.write_bytes(assign.SerializeToString())
            _die()
        send(self, key, assign)

    WorkerLink.assign = dying


def _deliver_late(withheld: Path) -> None:
    answered = WorkerLink.answered

    def then_late(self: WorkerLink, key: Key, state: wire.HeldState.ValueType) -> None:
        answered(self, key, state)
        late = wire.Assign.FromString(withheld.read_bytes()) if withheld.exists() else None
        if late is not None and state == wire.HELD_STATE_NEVER_BEGUN and key == Key.of(late.key):
            withheld.unlink()
            self.send(wire.ControlResponse(assign=late))

    WorkerLink.answered = then_late


def _be_deaf() -> None:
    record, handle = Results.record, WorkerServicer._handle  # pyright: ignore[reportPrivateUsage] -- the seam
    deaf, beats = asyncio.Event(), [0]

    async def recording(self: Results, report: Report) -> None:
        step = self.ledger.folded.node(report.result.key.step_id).node.step
        if step.action.effect_class == eff.EFFECT_CLASS_ONCE:
            deaf.set()
            await asyncio.Event().wait()
        await record(self, report)

    async def handling(self: WorkerServicer, link: LocalLink, request: wire.ControlRequest) -> None:
        beats[0] += deaf.is_set() and request.HasField("heartbeat")
        if beats[0] == _DEAF_FOR:
            _die()
        await handle(self, link, request)

    Results.record, WorkerServicer._handle = recording, handling  # pyright: ignore[reportPrivateUsage] -- the seam


def _be_careless() -> None:
    def lost_is_nothing(outcome: act.Outcome, _attempt: st.AttemptRecord) -> bool:
        return outcome.status != act.OUTCOME_STATUS_OK

    check._nothing_happened = lost_is_nothing  # pyright: ignore[reportPrivateUsage] -- the rule that is turned off


def _misbehave(arguments: argparse.Namespace) -> None:
    if arguments.die_at_intent or arguments.withhold:
        _die_at_intent(arguments.withhold)
    if arguments.late:
        _deliver_late(arguments.late)
    if arguments.deaf:
        _be_deaf()
    if arguments.careless:
        _be_careless()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("witness", type=Path)
    for flag in ("--die-at-intent", "--deaf", "--careless"):
        parser.add_argument(flag, action="store_true")
    for flag in ("--withhold", "--late"):
        parser.add_argument(flag, type=Path)
    parser.add_argument("names", nargs="+", choices=sorted(ALL))
    arguments = parser.parse_args()
    witness_assigns(arguments.witness)
    _misbehave(arguments)
    settings = load_settings()
    configure_logging(settings.log)
    asyncio.run(serve([ALL[name] for name in arguments.names], settings))
