"""What a journal holds: events as bytes with a kind, chained by hashes."""

from __future__ import annotations

from dataclasses import dataclass

from skyagent.run.v1.event_pb2 import EventBody

_NUMBERS = {field.name: field.number for field in EventBody.DESCRIPTOR.oneofs_by_name["kind"].fields}


@dataclass(frozen=True, slots=True)
class EventDraft:
    """An event to append: `kind` is the number of the field set in EventBody, `payload` the serialized EventBody."""

    kind: int
    payload: bytes

    @staticmethod
    def of(body: EventBody) -> EventDraft:
        """The draft of a body; ValueError when no kind of event is set in it."""
        name = body.WhichOneof("kind")
        if name is None:
            raise ValueError("an event body with nothing in it cannot be journalled: set one of its kinds")
        return EventDraft(_NUMBERS[name], body.SerializeToString(deterministic=True))


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as the journal has it. Hashes are 32 raw bytes; `payload` is None once it was lawfully erased."""

    run_id: str
    seq: int
    append_id: str
    epoch: int
    kind: int
    time_ms: int
    payload: bytes | None
    payload_digest: bytes
    prev_hash: bytes
    hash: bytes
