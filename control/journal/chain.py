"""The hash chain of a run. Change nothing here: every journal ever written was hashed by it.

hash = BLAKE3(domain, previous hash, run, seq, epoch, kind, time, append id, payload digest), numbers big-endian and
texts prefixed by their length, so that no two events share an encoding. The payload stands in it by its digest alone
and can therefore be erased.
"""

from __future__ import annotations

from struct import Struct

from blake3 import blake3

_EVENT = b"skyagent.journal.event.v1\0"
_RUN = b"skyagent.journal.run.v1\0"
_FORK = b"skyagent.journal.fork.v1\0"
_NUMBERS = Struct(">QQQQHH")


def payload_digest(payload: bytes) -> bytes:
    """32 bytes that stand for the payload in the chain."""
    return blake3(payload).digest()


def event_hash(
    prev_hash: bytes, run_id: str, seq: int, epoch: int, kind: int, time_ms: int, append_id: str, digest: bytes
) -> bytes:
    """The hash of one event. Raises struct.error for a number that is negative or beyond 64 bits."""
    run, append = run_id.encode(), append_id.encode()
    numbers = _NUMBERS.pack(seq, epoch, kind, time_ms, len(run), len(append))
    return blake3(b"".join((_EVENT, prev_hash, numbers, run, append, digest))).digest()


def first_link(run_id: str) -> bytes:
    """What the first event of a run has as its previous hash."""
    return blake3(_RUN + run_id.encode()).digest()


def fork_link(run_id: str, parent_run_id: str, parent_seq: int, parent_hash: bytes) -> bytes:
    """The same for a fork: it also names the event that it grew out of."""
    child, parent = run_id.encode(), parent_run_id.encode()
    numbers = _NUMBERS.pack(parent_seq, 0, 0, 0, len(child), len(parent))
    return blake3(b"".join((_FORK, numbers, child, parent, parent_hash))).digest()
