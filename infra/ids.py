"""Ids and randomness. Nothing else draws either, so that tests and simulation can seed them."""

from __future__ import annotations

import random
import threading
import uuid
from typing import Protocol

from ulid import ULID

from infra.clock import Clock
from infra.digest import digest_hex, digest_of
from infra.errors import InvalidArgument, Violation

_RANDOM_BITS = 80
_BASE32 = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(first + second for first in _BASE32 for second in _BASE32)
"""Ten bits as two characters: a third of the time that the library takes, of which every step needs some."""
_SHIFTS = tuple(range(120, -1, -10))


class Ids(Protocol):
    """Where new names come from."""

    def ulid(self) -> str:
        """A resource id: 26 characters of Crockford base 32, sortable by creation; each is greater than the last."""
        ...

    def uuid(self) -> str:
        """A request, call or incarnation id (RFC 9562 version 4)."""
        ...

    def secret(self) -> str:
        """64 hexadecimal digits that nobody can guess (unless seeded)."""
        ...

    def fraction(self) -> float:
        """From 0 up to but not including 1: for jitter."""
        ...


class RandomIds:
    """Ids from a clock and a source of randomness; monotonic as the ULID specification describes. Thread-safe."""

    def __init__(self, clock: Clock, source: random.Random) -> None:
        self._clock = clock
        self._source = source
        self._lock = threading.Lock()
        self._last = 0

    def ulid(self) -> str:
        with self._lock:
            now_ms = self._clock.now_ms()
            # The operating system's randomness costs a system call, so it is drawn once a millisecond.
            if now_ms > self._last >> _RANDOM_BITS:
                self._last = now_ms << _RANDOM_BITS | self._source.getrandbits(_RANDOM_BITS)
            else:
                self._last += 1
            return _written(self._last)

    def uuid(self) -> str:
        with self._lock:
            return str(uuid.UUID(int=self._source.getrandbits(128), version=4))

    def secret(self) -> str:
        with self._lock:
            return f"{self._source.getrandbits(256):064x}"

    def fraction(self) -> float:
        with self._lock:
            return self._source.random()


def system_ids(clock: Clock) -> RandomIds:
    """Ids from the operating system's randomness."""
    return RandomIds(clock, random.SystemRandom())


def seeded_ids(seed: int, clock: Clock) -> RandomIds:
    """The same ids for the same seed and the same times."""
    return RandomIds(clock, random.Random(seed))


def _written(number: int) -> str:
    return "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])


def derived_uuid(*parts: str) -> str:
    """A request id that is the same for the same parts (RFC 9562 version 8, from their BLAKE3)."""
    digest = digest_hex(digest_of("\0".join(parts).encode()))
    return str(uuid.UUID(f"{digest[:12]}8{digest[13:16]}{8 | int(digest[16], 16) & 3:x}{digest[17:32]}"))


def ulid_int(ulid: str) -> int:
    """The 128 bits of a ULID; raises InvalidArgument for anything else."""
    try:
        return int(ULID.from_str(ulid))
    except ValueError as bad:
        raise InvalidArgument(
            Violation("", f"{ulid!r} is not a ULID: give 26 characters of Crockford base 32")
        ) from bad


def ulid_ms(ulid: str) -> int:
    """When a ULID was made, in milliseconds since the Unix epoch."""
    return ulid_int(ulid) >> _RANDOM_BITS
