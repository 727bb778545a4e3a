"""The world that steps act on: it counts what happened to it, and can be asked. And the policy that judges them.

A save reaches the application a little after it was sent, also when who sent it dies in between. The application may
answer late, refuse, or say that it saved what it did not.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from execution.executor import Assignment, BlobSink
from execution.noop import NoopExecutor
from infra.digest import digest_message
from infra.errors import Unavailable
from infra.ids import Ids
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import browser_pb2 as br
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.policy.v1 import decision_pb2 as pol
from skyagent.policy.v1 import policy_service_pb2 as policy_api
from tests.simulation.loop import VirtualLoop
from tests.simulation.network import rpc_error

SETTLES = 1.5
"""Seconds within which what was sent takes effect; steps declare two."""
ASK = "ask first"


class World:
    """How often each thing happened."""

    def __init__(self, loop: VirtualLoop, chance: Random, told: Callable[[str], None]) -> None:
        self.loop, self.chance, self.told = loop, chance, told
        self.effects: Counter[str] = Counter()
        self.calm = False

    def happens(self, key: str) -> None:
        self.effects[key] += 1
        self.told(f"effect {key} ({self.effects[key]})")

    def send(self, key: str) -> asyncio.Event:
        """Something is on its way; the event tells that the application has it."""
        arrived = asyncio.Event()
        late = self.chance.random() < 0.1 and not self.calm
        delay = self.chance.uniform(0, SETTLES) if late else self.chance.expovariate(200)

        def arrive() -> None:
            self.happens(key)
            arrived.set()

        self.loop.call_later(min(delay, SETTLES), arrive, context=self.loop.outside)
        return arrived


class Hands(NoopExecutor):
    """A browser without a browser: saves, and reads the list."""

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def kind(self) -> str:
        return "browser"

    def actions(self) -> tuple[str, ...]:
        return ("browser.navigate/1", "browser.click/1", "browser.extract/1")

    async def execute(self, assignment: Assignment, blobs: BlobSink, progress: Callable[[str], None]) -> act.Outcome:
        world, browser = self._world, assignment.action.browser
        await asyncio.sleep(world.chance.expovariate(50))
        if browser.HasField("extract"):
            return self._list(browser.extract.url)
        if browser.HasField("navigate"):
            outcome = _ok()
            if world.chance.random() < 0.3:
                outcome.blobs.append(await blobs.put(browser.navigate.url.encode(), "text/plain", "page"))
            return outcome
        return await self._save(browser.click.expect[0].value)

    def _list(self, url: str) -> act.Outcome:
        key = url.partition("q=")[2]
        table = br.Table(rows=[br.TableRow(cells=["Number"], header=True)])
        for _ in range(self._world.effects[key]):
            table.rows.add(cells=[key])
        return _ok(
            br.BrowserResult(
                status=br.BROWSER_STATUS_OK, extracted=br.Extracted(tables=[table], http_status=200, url=url)
            )
        )

    async def _save(self, key: str) -> act.Outcome:
        chance = self._world.chance.random()
        if not self._world.calm and chance < 0.05:
            return _failed(eff.EFFECT_NONE, "refused by the application")
        arrived = self._world.send(key)
        try:
            await arrived.wait()
            await asyncio.sleep(self._world.chance.expovariate(100))
        except asyncio.CancelledError:
            return act.Outcome(
                status=act.OUTCOME_STATUS_CANCELLED,
                effect=eff.EFFECT_DONE if arrived.is_set() else eff.EFFECT_UNKNOWN,
                reason="CANCELLED",
            )
        return _failed(eff.EFFECT_UNKNOWN, "no answer") if not self._world.calm and chance > 0.93 else _ok()


def _ok(result: br.BrowserResult | None = None) -> act.Outcome:
    browser = result or br.BrowserResult(status=br.BROWSER_STATUS_OK)
    return act.Outcome(status=act.OUTCOME_STATUS_OK, effect=eff.EFFECT_DONE, browser=browser)


def _failed(effect: eff.Effect.ValueType, why: str) -> act.Outcome:
    return act.Outcome(status=act.OUTCOME_STATUS_FAILED, effect=effect, message=why)


class Policy:
    """Asks a person about what says so, allows the rest, and is away now and then. Stands where a channel does."""

    def __init__(self, ids: Ids, world: World) -> None:
        self._ids, self._world = ids, world

    def unary_unary(self, path: str, **_: Any) -> Callable[..., Coroutine[Any, Any, policy_api.CheckResponse]]:  # noqa: ANN401 -- as generated code passes it
        return self._check

    def stream_unary(self, path: str, **_: Any) -> None:  # noqa: ANN401 -- the same
        """Nobody calls it."""

    unary_stream = stream_stream = stream_unary

    async def _check(self, request: policy_api.CheckRequest, **_: object) -> policy_api.CheckResponse:
        chance = self._world.chance.random()
        if chance < 0.3:  # else it is recalled, without waiting for anything
            await asyncio.sleep(self._world.chance.expovariate(500))
        if chance < 0.02 and not self._world.calm:
            raise rpc_error(Unavailable("POLICY_AWAY", "the policy engine is away"))
        asks = any(field.label == ASK for field in request.action.browser.click.expect) and not request.approved
        verdict = pol.VERDICT_ASK if asks else pol.VERDICT_ALLOW
        decision = pol.Decision(decision_id=self._ids.ulid(), verdict=verdict, policy_ids=["simulated"])
        decision.action_digest = digest_message(request.action)
        return policy_api.CheckResponse(decision=decision)
