"""Columns of a batch as PostgreSQL's arrays, packed whole.

psycopg looks for a way to write each element by itself, which was a quarter of what the writer's thread did. The layout
is that of array_recv in PostgreSQL's sources (src/backend/utils/adt/arrayfuncs.c): dimensions, whether there are nulls,
type of the elements, length and lower bound, then each element behind its length; -1 stands for null.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from struct import Struct

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

_EMPTY, _HEAD = Struct("!iii"), Struct("!iiiii")
_LENGTH = Struct("!i")
_NULL = _LENGTH.pack(-1)
_BIGINT, _INTEGER, _BOOLEAN = Struct("!q"), Struct("!i"), Struct("!?")


@dataclass(frozen=True, slots=True)
class _Packed:
    data: bytes


class TextArray(_Packed):
    """A text[]."""


class ByteaArray(_Packed):
    """A bytea[]."""


class BigintArray(_Packed):
    """A int8[]."""


class IntegerArray(_Packed):
    """A int4[]."""


class BooleanArray(_Packed):
    """A bool[]."""


def texts(values: Iterable[str]) -> TextArray:
    """The values as text[]."""
    return TextArray(_variable(25, [value.encode() for value in values]))


def byte_strings(values: Sequence[bytes]) -> ByteaArray:
    """The values as bytea[]."""
    return ByteaArray(_variable(17, values))


def bigints(values: Sequence[int | None]) -> BigintArray:
    """The values as int8[]."""
    return BigintArray(_fixed(20, _BIGINT, values))


def integers(values: Sequence[int]) -> IntegerArray:
    """The values as int4[]."""
    return IntegerArray(_fixed(23, _INTEGER, values))


def booleans(values: Sequence[bool]) -> BooleanArray:
    """The values as bool[]."""
    return BooleanArray(_fixed(16, _BOOLEAN, values))


def register(connection: psycopg.Connection[object]) -> None:
    """Lets a connection take packed arrays as parameters (`%b`)."""
    for packed, dumper in _DUMPERS.items():
        connection.adapters.register_dumper(packed, dumper)


class _Dumper(Dumper):
    """Hands over what is packed already."""

    format = Format.BINARY

    def dump(self, obj: _Packed) -> bytes:
        return obj.data


def _dumper(oid: int) -> type[_Dumper]:
    return type(f"_Dumper{oid}", (_Dumper,), {"oid": oid})


_DUMPERS = {
    TextArray: _dumper(1009),
    ByteaArray: _dumper(1001),
    BigintArray: _dumper(1016),
    IntegerArray: _dumper(1007),
    BooleanArray: _dumper(1000),
}


def _head(oid: int, count: int, *, nulls: bool = False) -> bytes:
    return _HEAD.pack(1, nulls, oid, count, 1) if count else _EMPTY.pack(0, 0, oid)


def _variable(oid: int, values: Sequence[bytes]) -> bytes:
    """Ids and hashes are all of one length, which costs one join."""
    lengths = set(map(len, values))
    if len(lengths) == 1:
        behind = _LENGTH.pack(lengths.pop())
        return b"".join((_head(oid, len(values)), behind, behind.join(values)))
    pack = _LENGTH.pack
    return b"".join((_head(oid, len(values)), *(part for value in values for part in (pack(len(value)), value))))


def _fixed(oid: int, element: Struct, values: Sequence[int | None]) -> bytes:
    behind, pack = _LENGTH.pack(element.size), element.pack
    nulls = None in values
    if nulls:
        packed = b"".join(_NULL if value is None else behind + pack(value) for value in values)
        return _head(oid, len(values), nulls=nulls) + packed
    return b"".join((_head(oid, len(values)), behind if values else b"", behind.join(map(pack, values))))
