"""A run without a mesh: the core's moves are carried out against a scripted world, in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

from control.core import verdicts
from control.core.check import Checks
from control.core.dispatch import next_move
from control.core.moves import Attempt, Draw, Finish, Move, OwnStep, Plan, Record, Wait
from control.core.run import RunFold, outcome_in
from infra.digest import digest_message
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import browser_pb2 as br
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.policy.v1 import decision_pb2 as pol
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan
from skyagent.run.v1 import state_pb2 as st

World = Callable[[st.NodeRecord, int], act.Outcome]
Policy = Callable[[st.NodeRecord], pol.Verdict.ValueType]


def ok(**browser: object) -> act.Outcome:
    result = br.BrowserResult(status=br.BROWSER_STATUS_OK, **browser)  # pyright: ignore[reportArgumentType]
    return act.Outcome(status=act.OUTCOME_STATUS_OK, effect=eff.EFFECT_DONE, browser=result)


def failed(status: br.BrowserStatus.ValueType, effect: eff.Effect.ValueType = eff.EFFECT_NONE) -> act.Outcome:
    result = br.BrowserResult(status=status)
    return act.Outcome(status=act.OUTCOME_STATUS_FAILED, effect=effect, browser=result, message="it failed")


def lost() -> act.Outcome:
    return act.Outcome(status=act.OUTCOME_STATUS_LOST, effect=eff.EFFECT_UNKNOWN, message="the worker died")


def allow(_record: st.NodeRecord) -> pol.Verdict.ValueType:
    return pol.VERDICT_ALLOW


@dataclass
class Simulation:
    """Drives one run over a fixed plan. `world` answers each attempt; `journal` holds every event."""

    nodes: Sequence[plan.PlanNode]
    world: World
    policy: Policy = allow
    journal: list[ev.RunEvent] = field(default_factory=list[ev.RunEvent])
    folded: RunFold = field(default_factory=RunFold)
    outcomes: dict[int, act.Outcome] = field(default_factory=dict[int, act.Outcome])
    now_ms: int = 1_000_000
    numbers: count[int] = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self.append(ev.EventBody(run_created=ev.RunCreated(mission_id="M", tenant="t")))
        self.append(ev.EventBody(owner_changed=ev.OwnerChanged(node_id="node-1")))

    def append(self, *bodies: ev.EventBody) -> None:
        for body in bodies:
            event = ev.RunEvent(run_id="R", seq=self.folded.state.seq + 1, epoch=1, body=body)
            event.time.FromMilliseconds(self.now_ms)
            self.folded.apply(event)
            self.journal.append(event)
            if (outcome := outcome_in(body)) is not None:
                self.outcomes[event.seq] = outcome

    def move(self) -> Move:
        return next_move(self.folded, Checks(self.outcomes, self.new_id), self.now_ms)

    def new_id(self) -> str:
        return f"P{next(self.numbers)}"

    def run(self, limit: int = 500) -> ev.RunPhase.ValueType:
        """Carries out moves until the run ends or waits for something that will not come by itself."""
        for _ in range(limit):
            if self.run_one():
                return self.folded.state.phase
        raise AssertionError(f"the run did not end within {limit} moves")

    def run_one(self) -> bool:
        """Carries out one move; whether nothing more comes by itself."""
        move = self.move()
        match move:
            case Wait(0):
                return True
            case Wait(until_ms):
                self.now_ms = until_ms
            case Finish(phase, reason, summary):
                finished = ev.RunFinished(phase=phase, reason=reason, summary=summary)
                self.append(ev.EventBody(run_finished=finished))
            case Record(events):
                assert events, "a move that records nothing would be made for ever"
                self.append(*events)
            case Plan():
                self.append(ev.EventBody(plan_extended=ev.PlanExtended(nodes=self._unplanned())))
            case Draw():
                return True
            case OwnStep(record):
                settled = ev.NodeSettled(node_id=record.node.node_id, state=ev.NODE_STATE_SUCCEEDED)
                self.append(ev.EventBody(node_settled=settled))
            case Attempt():
                self._attempt(move)
        self.now_ms += 10
        return False

    def answer(self, state: ev.ApprovalState.ValueType) -> None:
        approval = self.folded.state.approvals[-1]
        decided = ev.ApprovalDecided(approval_id=approval.approval_id, state=state, actor="ann")
        self.append(ev.EventBody(approval_decided=decided))

    def kinds(self) -> list[str]:
        return [event.body.WhichOneof("kind") or "" for event in self.journal]

    def step(self, title: str) -> st.NodeRecord:
        return next(node for node in self.folded.state.nodes if node.node.title == title)

    def _unplanned(self) -> Sequence[plan.PlanNode]:
        return () if self.folded.state.nodes else self.nodes

    def _attempt(self, move: Attempt) -> None:
        record, digest = move.record, digest_message(move.record.node.step.action)
        verdict = pol.VERDICT_ALLOW if move.approval else self.policy(record)
        decision = pol.Decision(verdict=verdict)
        unblocked, decided = verdicts.unblocked(self.folded.state), verdicts.decided(move, decision)
        if verdict == pol.VERDICT_ASK:
            expires_ms = self.now_ms + verdicts.ttl_ms(self.folded.state, decision)
            asked = verdicts.question(self.folded, record, decision, self.new_id(), expires_ms)
            self.append(*unblocked, decided, ev.EventBody(approval_requested=asked))
            return
        self.append(*unblocked, decided, verdicts.intended(move, digest, decided, "browser-1", ""))
        self.now_ms += 50
        finished = ev.StepFinished(step_id=record.node.node_id, attempt=move.number, worker_id="browser-1")
        finished.outcome.CopyFrom(self.world(record, move.number))
        self.append(ev.EventBody(step_finished=finished))


def group(node_id: str, parent: str = "", **options: object) -> plan.PlanNode:
    made = plan.Group(**options)  # pyright: ignore[reportArgumentType]
    return plan.PlanNode(node_id=node_id, parent_id=parent, title=node_id, group=made)


def step(
    node_id: str,
    parent: str = "",
    effect: eff.EffectClass.ValueType = eff.EFFECT_CLASS_READ,
    *claims: plan.Postcondition,
) -> plan.PlanNode:
    click = br.ClickAction(target=br.Target(locator=br.Locator(name=node_id)))
    action = act.Action(effect_class=effect, browser=br.BrowserAction(session_id="main", click=click))
    made = plan.Step(action=action, postconditions=claims)
    return plan.PlanNode(node_id=node_id, parent_id=parent, title=node_id, step=made)


def record_group(key: str) -> list[plan.PlanNode]:
    """Open, fill and save one record, as the template plans it."""
    listed = plan.Postcondition(listed=plan.Listed(url=f"http://app/?q={key}", key=key))
    options = {"on_failure": plan.ON_FAILURE_CONTINUE, "restart_from_first": True, "record_key": key}
    return [
        group(key, "records", **options),
        step(f"open {key}", key),
        step(f"fill {key}", key, eff.EFFECT_CLASS_IDEMPOTENT),
        step(f"save {key}", key, eff.EFFECT_CLASS_PROBEABLE, listed),
    ]


def records_plan(*keys: str) -> list[plan.PlanNode]:
    nodes = [group("records", on_failure=plan.ON_FAILURE_CONTINUE)]
    for key in keys:
        nodes += record_group(key)
    return nodes


@dataclass
class Application:
    """A list of records that saves add to and probes read; `saves` scripts what becomes of each save in turn."""

    saves: list[str] = field(default_factory=list[str])
    saved: list[str] = field(default_factory=list[str])

    def __call__(self, record: st.NodeRecord, _attempt: int) -> act.Outcome:
        title, action = record.node.title, record.node.step.action.browser
        if action.HasField("extract"):
            key = action.extract.url.partition("q=")[2]
            rows = [br.TableRow(cells=["Number"], header=True)]
            rows += [br.TableRow(cells=[name]) for name in self.saved if name == key]
            return ok(extracted=br.Extracted(tables=[br.Table(rows=rows)], http_status=200))
        return self._save(title.removeprefix("save ")) if title.startswith("save ") else ok()

    def _save(self, key: str) -> act.Outcome:
        script = self.saves.pop(0) if self.saves else "saved"
        if script in ("saved", "lost after"):
            self.saved.append(key)
        return lost() if script.startswith("lost") else ok()
