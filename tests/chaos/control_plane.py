"""Services of the control plane as a process: `python -m tests.chaos.control_plane [FLAG…] NAME…`.

With `--die-at-intent` it ends itself, as `kill -9` would, between the commit of the first post's intent and its Assign.
With `--careless` it takes what was lost for what never happened, so that a campaign can show that it would notice.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal

from control.core import check
from control.orchestrator.links import Key, WorkerLink
from control.services import ALL
from infra.log import configure_logging
from infra.mesh import serve
from infra.settings import load_settings
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.execution.v1 import worker_service_pb2 as wire
from skyagent.run.v1 import state_pb2 as st


def _die_at_intent() -> None:
    send = WorkerLink.assign

    def dying(self: WorkerLink, key: Key, assign: wire.Assign) -> None:
        if assign.action.effect_class == eff.EFFECT_CLASS_ONCE:
            os.kill(os.getpid(), signal.SIGKILL)
        send(self, key, assign)

    WorkerLink.assign = dying


def _be_careless() -> None:
    def lost_is_nothing(outcome: act.Outcome, _attempt: st.AttemptRecord) -> bool:
        return outcome.status != act.OUTCOME_STATUS_OK

    check._nothing_happened = lost_is_nothing  # pyright: ignore[reportPrivateUsage] -- the rule that is turned off


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--die-at-intent", action="store_true")
    parser.add_argument("--careless", action="store_true")
    parser.add_argument("names", nargs="+", choices=sorted(ALL))
    arguments = parser.parse_args()
    if arguments.die_at_intent:
        _die_at_intent()
    if arguments.careless:
        _be_careless()
    settings = load_settings()
    configure_logging(settings.log)
    asyncio.run(serve([ALL[name] for name in arguments.names], settings))
