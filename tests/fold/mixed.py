"""Journals of every kind of event in any order that the fold allows, with every field filled at random."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import TypeAlias

from google._upb import _message
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Value

from control.core.meters import KINDS as BUDGETS
from control.core.run import RunFold
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan
from skyagent.run.v1 import state_pb2 as st

FIRST, LAST = "run_created", "run_finished"
KINDS = tuple(field.name for field in ev.EventBody.DESCRIPTOR.fields if field.name not in (FIRST, LAST))
"""What may happen between them."""

ALPHABET = 'abz019 _-{}"\\/é€\U0001f600\x00\n'
MAX_DEPTH = 6


def journal(seed: int, length: int) -> Iterator[ev.RunEvent]:
    """A journal of so many events: it begins and ends as journals do, and in between any kind may follow any other."""
    chance = random.Random(seed)
    folded = RunFold()
    for number in range(1, length + 1):
        kind = FIRST if number == 1 else LAST if number == length else chance.choice(KINDS)
        event = ev.RunEvent(run_id=f"run {seed}", seq=number, epoch=chance.randrange(1 << 50), hash=_text(chance))
        fill(event.time, chance)
        if kind == FIRST or chance.random() < 0.99:
            event.body.CopyFrom(_body(kind, folded, chance))
        else:
            event.erased = True
        folded.apply(event)
        yield event


def _body(kind: str, folded: RunFold, chance: random.Random) -> ev.EventBody:
    """A body of this kind that may follow; of another kind when what it needs is not there yet."""
    body = ev.EventBody()
    message: Message = getattr(body, kind)
    message.SetInParent()
    fill(message, chance)
    if _legal(message, folded, chance):
        return body
    return ev.EventBody(plan_extended=ev.PlanExtended(nodes=_nodes(folded, chance)))


def _legal(message: Message, folded: RunFold, chance: random.Random) -> bool:
    """Names what exists in the run so far; tells whether there is anything to name."""
    _name_budgets(message, folded, chance)
    nodes, approvals = folded.state.nodes, folded.state.approvals
    if isinstance(message, ev.PlanExtended):
        del message.nodes[:]
        message.nodes.extend(_nodes(folded, chance))
    if isinstance(message, (ev.GroupRestarted, ev.NodeSettled)):
        groups = [record for record in nodes if record.node.HasField("group") or isinstance(message, ev.NodeSettled)]
        if not groups:
            return False
        message.node_id = chance.choice(groups).node.node_id
    if isinstance(message, ev.ApprovalRequested):
        message.approval_id = f"approval {len(approvals)}"
    if isinstance(message, ev.ApprovalDecided):
        if not approvals:
            return False
        message.approval_id = chance.choice(approvals).approval_id
    if isinstance(message, ev.StateInherited):
        message.state = _facts(folded, chance).SerializeToString(deterministic=True)
        message.more = False
    if isinstance(message, ev.StepIntended):
        message.approval_id = chance.choice([*(each.approval_id for each in approvals), ""])
    return _legal_step(message, folded, chance)


def _name_budgets(message: Message, folded: RunFold, chance: random.Random) -> None:
    """Budgets that are known, grants that may have come before, calls that may be under way."""
    named = [message] if isinstance(message, ev.BudgetGranted) else []
    if isinstance(message, ev.RunBudgeted):
        named = list(message.draws)
    if isinstance(message, ev.CommandApplied) and message.command.HasField("budget"):
        named = [message.command.budget]
    for each in named:
        each.kind = chance.choice([*BUDGETS, "else"])
    if isinstance(message, ev.RunCreated):
        message.fold_version = chance.choice([0, 1, 2, 3])
    if isinstance(message, (ev.ModelCallIntended, ev.ModelCallFinished)):
        message.call_id = chance.choice(
            [*(call.call_id for call in folded.state.calls[-5:]), f"call {folded.state.seq}"]
        )


def _legal_step(message: Message, folded: RunFold, chance: random.Random) -> bool:
    steps = [record for record in folded.state.nodes if record.node.HasField("step")]
    if "step_id" not in message.DESCRIPTOR.fields_by_name or isinstance(message, (ev.LateResult, ev.ArtifactRecorded)):
        return True
    if not steps:
        return False
    # Often the newest steps, so that some live long and some are hardly touched.
    record = chance.choice(steps[-20:] if chance.random() < 0.8 else steps)
    setattr(message, "step_id", record.node.node_id)  # noqa: B010 - several types of message
    if "attempt" in message.DESCRIPTOR.fields_by_name:
        newest = len(record.attempts)
        again = newest > 0 and chance.random() < 0.7
        setattr(message, "attempt", chance.randint(1, newest) if again else newest + 1)  # noqa: B010
    return True


def _facts(folded: RunFold, chance: random.Random) -> st.RunState:
    """What a fork may inherit: nodes with all that became of them, and what else its parent knew."""
    facts = st.RunState(planning_open=chance.random() < 0.5)
    for node in _nodes(folded, chance):
        record = facts.nodes.add(node=node, state=chance.randint(1, 9))
        for number in range(chance.randint(0, 2)):
            fill(record.attempts.add(), chance, 3)
            record.attempts[-1].attempt, record.attempts[-1].open = number + 1, False
    for inherited in (facts.sessions.add(), facts.parent):
        fill(inherited, chance, 3)
    steps = [record for record in facts.nodes if record.node.HasField("step")]
    done = [record for record in steps if record.state == ev.NODE_STATE_SUCCEEDED and not record.node.step.probe_of]
    facts.counts.steps_succeeded = folded.state.counts.steps_succeeded + len(done)
    facts.counts.uncertain = folded.state.counts.uncertain + sum(r.state == ev.NODE_STATE_UNCERTAIN for r in steps)
    return facts


def _nodes(folded: RunFold, chance: random.Random) -> list[plan.PlanNode]:
    groups = [record.node.node_id for record in folded.state.nodes if record.node.HasField("group")]
    steps = [record.node.node_id for record in folded.state.nodes if record.node.HasField("step")]
    first = len(folded.state.nodes)
    made: list[plan.PlanNode] = []
    for number in range(first, first + chance.randint(1, 4)):
        node = plan.PlanNode()
        fill(node, chance)
        node.node_id = f"node {number}"
        node.parent_id = chance.choice([*groups[-8:], ""])
        if chance.random() < 0.3:
            node.group.SetInParent()
            groups.append(node.node_id)
        elif steps and chance.random() < 0.2:
            node.step.probe_of = chance.choice(steps)
        else:
            node.step.probe_of = ""
            steps.append(node.node_id)
        made.append(node)
    return made


Field: TypeAlias = "FieldDescriptor | _message.FieldDescriptor"


def fill(message: Message, chance: random.Random, depth: int = 0) -> None:
    """Sets about half of the fields, and of a oneof the last one that was set."""
    for field in message.DESCRIPTOR.fields:
        if chance.random() < 0.5 or (depth > MAX_DEPTH and field.message_type):
            continue
        if field.message_type and field.message_type.GetOptions().map_entry:
            _fill_map(message, field, chance, depth)
        elif field.is_repeated:
            _fill_list(message, field, chance, depth)
        elif field.message_type:
            inner: Message = getattr(message, field.name)
            inner.SetInParent()
            fill(inner, chance, depth + 1)
        else:
            setattr(message, field.name, _scalar(field, chance))
    if isinstance(message, Value) and not message.WhichOneof("kind"):
        message.bool_value = True  # Without a kind it is no JSON value at all.


def _fill_list(message: Message, field: Field, chance: random.Random, depth: int) -> None:
    items = getattr(message, field.name)
    for _ in range(chance.randint(0, 2)):
        if field.message_type:
            fill(items.add(), chance, depth + 1)
        else:
            items.append(_scalar(field, chance))


def _fill_map(message: Message, field: Field, chance: random.Random, depth: int) -> None:
    """Keys that languages like to put in other orders: numbers, beginnings of each other, more than one byte."""
    entries = getattr(message, field.name)
    assert field.message_type
    value = field.message_type.fields_by_name["value"]
    for key in chance.sample(["9", "10", "", "a", "aa", "z", "é", "\U0001f600", "-1"], 3):
        if value.message_type:
            fill(entries[key], chance, depth + 1)
        else:
            entries[key] = _scalar(value, chance)


def _scalar(field: Field, chance: random.Random) -> object:
    if field.enum_type:
        return chance.choice(field.enum_type.values).number
    return _SCALARS[field.cpp_type](chance) if field.type != FieldDescriptor.TYPE_BYTES else chance.randbytes(5)


def _text(chance: random.Random) -> str:
    return "".join(chance.choices(ALPHABET, k=chance.randint(0, 8)))


_SCALARS: dict[int, Callable[[random.Random], object]] = {
    FieldDescriptor.CPPTYPE_STRING: _text,
    FieldDescriptor.CPPTYPE_BOOL: lambda chance: chance.random() < 0.5,
    FieldDescriptor.CPPTYPE_INT32: lambda chance: chance.choice([0, 1, -1, (1 << 31) - 1, -(1 << 31)]),
    FieldDescriptor.CPPTYPE_UINT32: lambda chance: chance.choice([0, 1, 300, (1 << 32) - 1]),
    FieldDescriptor.CPPTYPE_INT64: lambda chance: chance.choice([0, 1, -1, (1 << 63) - 1, -(1 << 63)]),
    FieldDescriptor.CPPTYPE_UINT64: lambda chance: chance.choice([0, 1, 1 << 53, 1 << 40]),
    FieldDescriptor.CPPTYPE_DOUBLE: lambda chance: chance.choice([0.0, 1.5, -1e300, chance.random()]),
    FieldDescriptor.CPPTYPE_FLOAT: lambda chance: chance.choice([0.0, 1.5]),
}
