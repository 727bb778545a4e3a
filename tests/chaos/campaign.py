"""Kills real processes while a shop is being served, and checks afterwards that nothing was lost or done twice.

`python -m tests.chaos.campaign --kills 60 --seed 1 [--nodes 2]`; `make chaos` is the same. With more than one node the
control planes share a PostgreSQL. Every choice follows from the seed; how far a victim had come does not. Ends with 1
when an invariant does not hold. Ctrl-C leaves no process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import grpc

from control.core.run import terminal
from execution.joints import Joint
from infra.auth import prepare_worker_token
from infra.channels import Readiness, dial, file_token
from skyagent.artifact.v1 import artifact_service_pb2 as artifacts
from skyagent.artifact.v1 import artifact_service_pb2_grpc as artifacts_rpc
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.mission.v1 import mission_pb2 as mission
from skyagent.mission.v1 import mission_service_pb2 as missions
from skyagent.mission.v1 import mission_service_pb2_grpc as missions_rpc
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import run_service_pb2 as runs
from skyagent.run.v1 import run_service_pb2_grpc as runs_rpc
from skyagent.run.v1 import state_pb2 as st
from tests.chaos.application import Application, application
from tests.chaos.invariants import Rule, Violation
from tests.chaos.remains import Attempt
from tests.chaos.stage import CLOCK, IDS, Life, Stage, free_port, staged
from tests.chaos.test_controls import LET_GO
from tests.chaos.test_controls import (
    test_the_campaign_notices_a_journal_that_lets_an_overtaken_owner_append as overtaken_append,
)
from tests.chaos.test_controls import (
    test_the_campaign_notices_a_worker_that_lets_go_at_the_transports_ack as transport_ack,
)
from tests.chaos.test_controls import (
    test_the_campaign_notices_a_worker_that_obeys_an_overtaken_owner as overtaken_owner,
)
from tests.chaos.test_controls import (
    test_the_campaign_notices_lost_taken_for_never_happened_and_a_worker_without_a_journal as journal_and_care,
)
from tests.chaos.witness import begun, recorded
from tests.servers.postgres import temporary_postgres

ROWS, AT_ONCE = 8, 4
"""Orders of a mission, and missions under way at once."""
PATIENCE = 240.0
PEERS = Path("build/peers/bin/python").absolute()
WAYS = ("kill", "kill", "kill", "joint", "joint", "freeze", "kill both")


@dataclass
class Figures:
    """What build/chaos/chaos.json holds."""

    seed: int
    nodes: int
    kills: int = 0
    freezes: int = 0
    orders: int = 0
    lost: int = 0
    twice: int = 0
    uncertain: int = 0
    uncertain_outside_window: int = 0
    orphans: int = 0
    violations: list[str] = field(default_factory=list[str])
    controls_caught: dict[str, bool] = field(default_factory=dict[str, bool])
    langgraph_kills: int = 0
    langgraph_twice: int | None = None
    """None: the peers are not installed."""


@dataclass
class Shop:
    """Orders that are given, one mission after another, by a client that tries again while nobody answers."""

    stage: Stage
    app: Application
    listens: list[str]
    run_ids: list[str] = field(default_factory=list[str])
    ended: dict[str, st.RunState] = field(default_factory=dict[str, st.RunState])
    orders: list[str] = field(default_factory=list[str])
    closed: bool = False

    @asynccontextmanager
    async def called(self) -> AsyncGenerator[grpc.aio.Channel]:
        """Whoever of the control planes answers; Unavailable when the first does not."""
        token = file_token(self.stage.settings.token_path)
        self.listens.append(self.listens.pop(0))
        async with dial(self.listens[0], token=token, readiness=Readiness.WAIT, deadline=5.0) as channel:
            yield channel

    async def serve(self) -> None:
        """Until it is closed and everything has ended."""
        while not self.closed or len(self.ended) < len(self.run_ids):
            with suppress(grpc.aio.AioRpcError):
                async with self.called() as channel:
                    await self._look(runs_rpc.RunServiceStub(channel))
                    if not self.closed and len(self.run_ids) - len(self.ended) < AT_ONCE:
                        await self._order(channel)
            await asyncio.sleep(0.2)

    async def _order(self, channel: grpc.aio.Channel) -> None:
        numbers = [f"O-{len(self.orders) + n:05}" for n in range(ROWS)]
        rows = "Number,Amount\n" + "".join(f"{number},1.00\n" for number in numbers)
        table = artifacts.UploadFileRequest(data=rows.encode(), media_type="text/csv")
        stored = (await artifacts_rpc.ArtifactServiceStub(channel).UploadFile(table)).blob
        spec = mission.MissionSpec(goal="ship them", template="data_entry")
        spec.files.add(digest=stored.digest, size=stored.size, media_type="text/csv", role="rows")
        for name, value in {"proof": "none", "site": self.app.url, "form": "/payments/add/"}.items():
            spec.inputs.add(name=name, value=value)
        request = missions.CreateMissionRequest(spec=spec, request_id=IDS.uuid())
        while True:  # the same request again is the same mission
            try:
                created = await missions_rpc.MissionServiceStub(channel).CreateMission(request)
                break
            except grpc.aio.AioRpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    raise
        self.run_ids.append(created.run_id)
        self.orders += numbers

    async def _look(self, stub: runs_rpc.RunServiceAsyncStub) -> None:
        for run_id in self.run_ids:
            if run_id not in self.ended:
                state = (await stub.GetRun(runs.GetRunRequest(run_id=run_id))).run
                if terminal(state.phase):
                    self.ended[run_id] = state
                elif self.closed and state.phase == ev.RUN_PHASE_WAITING:
                    await self._resolve(stub, state)

    async def _resolve(self, stub: runs_rpc.RunServiceAsyncStub, state: st.RunState) -> None:
        """A person looks into the shop's own books."""
        for node in uncertain(state):
            key = node.node.step.action.browser.click.expect[0].value
            effect = eff.EFFECT_DONE if self.app.posts[key] else eff.EFFECT_NONE
            await stub.ResolveStep(
                runs.ResolveStepRequest(run_id=state.run_id, step_id=node.node.node_id, effect=effect, note="I looked")
            )


def uncertain(state: st.RunState) -> list[st.NodeRecord]:
    return [node for node in state.nodes if node.node.HasField("step") and node.state == ev.NODE_STATE_UNCERTAIN]


@dataclass
class Victims:
    """The processes that are killed and started again."""

    stage: Stage
    chance: Random
    envs: list[dict[str, str]]
    figures: Figures
    planes: list[Life] = field(default_factory=list[Life])
    worker: Life | None = None

    async def all_live(self) -> None:
        for position, env in enumerate(self.envs):
            if position == len(self.planes):
                self.planes.append(await self.stage.control_plane(**env))
            elif not self.planes[position].lives:
                self.planes[position] = await self.stage.control_plane(**env)
        if self.worker is None or not self.worker.lives:
            self.worker = await self._worker("")

    async def _worker(self, crash_at: str) -> Life:
        into = self.chance.choice(self.envs)
        return await self.stage.paper_worker(crash_at=crash_at, SKYAGENT_LISTEN=into["SKYAGENT_LISTEN"])

    async def strike(self) -> str:
        """One misfortune, and everything is started again."""
        await self.all_live()
        how, plane = self.chance.choice(WAYS), self.chance.choice(self.planes)
        worker = self.worker
        assert worker is not None
        await asyncio.sleep(self.chance.uniform(0.5, 3.0))
        if how == "joint":
            return await self._at_a_joint(worker)
        victim = self.chance.choice((plane, worker))
        what = "control plane" if victim is plane else "worker"
        if how == "freeze":
            self.figures.freezes += 1
            seconds = self.chance.choice((0.5, 2.0, 5.0))
            victim.tell(signal.SIGSTOP)
            await asyncio.sleep(seconds)
            victim.tell(signal.SIGCONT)
            return f"{what} frozen for {seconds:g} s"
        for each in (plane, worker) if how == "kill both" else (victim,):
            await each.kill()
            self.figures.kills += 1
        return f"{'control plane and worker' if how == 'kill both' else what} killed"

    async def _at_a_joint(self, worker: Life) -> str:
        await worker.kill()
        self.figures.kills += 1
        joint, nth = self.chance.choice(list(Joint)), self.chance.randint(1, 3)
        self.worker = await self._worker(f"{joint}@once:{nth}")
        with suppress(TimeoutError):
            async with asyncio.timeout(15):
                await self.worker.end()
                self.figures.kills += 1
                return f"worker killed at {joint!s} of its post number {nth}"
        return f"worker was not asked for a post number {nth} in time"


async def campaign(figures: Figures, kills: int, *, thinks: float) -> None:
    """Strikes until there were enough kills; then everything must end, and the invariants must hold."""
    chance = Random(figures.seed)
    with TemporaryDirectory(prefix="skyagent-chaos-") as folder, database(figures.nodes) as url:
        async with application() as app, staged(Path(folder)) as (stage, _):
            app.thinks, stage.campaign.database_url = thinks, url
            envs = [environment_of(stage, position, url) for position in range(figures.nodes)]
            prepare_worker_token(stage.settings, CLOCK, IDS, "browser-1")
            victims = Victims(stage, chance, envs, figures)
            shop = Shop(stage, app, [env["SKYAGENT_LISTEN"] for env in envs])
            await victims.all_live()
            async with asyncio.TaskGroup() as group:
                serving = group.create_task(shop.serve())
                while figures.kills < kills:
                    what = await victims.strike()
                    ended = f"{len(shop.ended)} of {len(shop.run_ids)} missions ended"
                    print(
                        f"[{figures.kills:>4}/{kills}] {what}; {sum(app.posts.values())} orders shipped, {ended}",
                        flush=True,
                    )
                shop.closed = True
                async with asyncio.timeout(PATIENCE):
                    while not serving.done():
                        await victims.all_live()
                        await asyncio.wait([serving], timeout=2)
            found = await stage.findings(app.posts)
            count(figures, shop, found, Path(stage.witness))


def environment_of(stage: Stage, position: int, url: str) -> dict[str, str]:
    listen = stage.settings.listen if position == 0 else f"127.0.0.1:{free_port()}"
    shared = {"SKYAGENT_DATABASE_URL": url, "SKYAGENT_NODE_ID": f"node-{position + 1}"} if url else {}
    return {"SKYAGENT_LISTEN": listen, **shared}


@contextmanager
def database(nodes: int) -> Generator[str]:
    """The address of a PostgreSQL for several nodes; nothing for one."""
    with temporary_postgres() if nodes > 1 else nullcontext() as server:
        yield server.database("chaos") if server is not None else ""


def count(figures: Figures, shop: Shop, found: list[Violation], witness: Path) -> None:
    figures.orders = len(shop.orders)
    figures.twice = sum(times > 1 for times in shop.app.posts.values())
    figures.lost = sum(not shop.app.posts[order] for order in shop.orders)
    figures.violations = [f"{one.rule}: {one.detail}" for one in found]
    figures.orphans = sum("still runs" in one.detail for one in found)
    known = set(begun(witness)) - set(recorded(witness))
    for state in shop.ended.values():
        for node in state.nodes:
            for attempt in node.attempts:
                if (
                    node.node.HasField("step")
                    and attempt.effect_class == eff.EFFECT_CLASS_ONCE
                    and attempt.outcome_reason == "WORKER_DIED"
                ):
                    figures.uncertain += 1
                    outside = Attempt(state.run_id, node.node.node_id, attempt.attempt) not in known
                    figures.uncertain_outside_window += outside


async def controls(figures: Figures) -> None:
    """With one rule turned off at a time, real processes must break an invariant, and the checker must say so."""
    scenarios = {
        "lost taken for never happened": partial(
            journal_and_care, control_plane=("--careless",), worker=(), violated={Rule.ONCE}
        ),
        "no journal at the worker": partial(
            journal_and_care, control_plane=(), worker=("--forgetful",), violated={Rule.ONCE}
        ),
        "no fence at the worker": partial(overtaken_owner, worker=("--unfenced",), violated={Rule.ONCE}),
        "no fence at the journal": partial(overtaken_append, fenced=False, violated={Rule.EPOCHS}),
        "transport ack for ResultRecorded": partial(transport_ack, worker=("--trusting",), violated=LET_GO),
    }
    for name, scenario in scenarios.items():
        with TemporaryDirectory(prefix="skyagent-chaos-control-") as folder:
            try:
                await scenario(Path(folder))
            except AssertionError as unnoticed:
                figures.controls_caught[name] = False
                print(f"control: {name}: {unnoticed}")
            else:
                figures.controls_caught[name] = True
                print(f"control: {name}: noticed", flush=True)


async def langgraph(figures: Figures, kills: int, *, thinks: float) -> None:
    """A graph that posts orders, killed as often, and resumed each time: how many orders it shipped twice."""
    if not PEERS.exists():
        print("LangGraph is not installed: `make bench-journal` makes build/peers, then it is tried beside")
        return
    chance, script = Random(figures.seed), Path(__file__).parents[1] / "peers" / "langgraph_orders.py"
    async with application() as app:
        app.thinks = thinks
        with TemporaryDirectory(prefix="skyagent-chaos-peer-") as folder:
            first, url = 0, f"{app.url}payments/add/"
            while figures.langgraph_kills < kills:
                command = [str(PEERS), str(script), f"{folder}/graph.db", url, str(first), "100"]
                process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
                try:
                    shipped = sum(app.posts.values())
                    async with asyncio.timeout(60):
                        await app.shipped(shipped + 1)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(chance.uniform(0, 2)):
                            await process.wait()
                            first += 100
                finally:
                    if process.returncode is None:
                        process.kill()
                        await process.wait()
                        figures.langgraph_kills += 1
    figures.langgraph_twice = sum(times > 1 for times in app.posts.values())


def show(figures: Figures) -> None:
    rows = {
        "kills (and freezes)": f"{figures.kills} ({figures.freezes})",
        "orders": str(figures.orders),
        "lost": str(figures.lost),
        "shipped twice": str(figures.twice),
        "uncertain, put to a person": f"{figures.uncertain} ({figures.uncertain / max(figures.orders, 1):.1%})",
        "… though not killed inside the effect": str(figures.uncertain_outside_window),
        "processes left": str(figures.orphans),
        "invariants broken": str(len(figures.violations)),
        "controls noticed": f"{sum(figures.controls_caught.values())} of {len(figures.controls_caught)}",
        "LangGraph, shipped twice": f"{figures.langgraph_twice} in {figures.langgraph_kills} kills",
    }
    print(f"\nseed {figures.seed}, {figures.nodes} control plane(s)")
    for name, value in rows.items():
        print(f"  {name:<40}{value:>14}")
    print(*(f"  {one}" for one in figures.violations), sep="\n")


def main(arguments: argparse.Namespace) -> int:
    figures = Figures(arguments.seed, arguments.nodes)
    asyncio.run(campaign(figures, arguments.kills, thinks=arguments.thinks))
    if arguments.controls:
        asyncio.run(controls(figures))
    if arguments.langgraph:
        asyncio.run(langgraph(figures, arguments.kills, thinks=arguments.thinks))
    show(figures)
    report = Path("build/chaos/chaos.json")
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(asdict(figures), indent=2) + "\n")
    again = f"--kills {arguments.kills} --seed {figures.seed} --nodes {figures.nodes}"
    print(f"\n{report}; again: python -m tests.chaos.campaign {again}")
    bad = figures.violations or figures.lost or figures.twice or figures.uncertain_outside_window
    return 1 if bad or not all(figures.controls_caught.values()) else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.campaign", description=__doc__)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nodes", type=int, default=1, help="control planes; more than one share a PostgreSQL")
    parser.add_argument("--thinks", type=float, default=0.15, help="seconds that the shop takes to answer")
    parser.add_argument("--no-controls", dest="controls", action="store_false", help="break no rule on purpose")
    parser.add_argument("--no-langgraph", dest="langgraph", action="store_false")
    with suppress(KeyboardInterrupt):
        sys.exit(main(parser.parse_args()))
    sys.exit(130)
