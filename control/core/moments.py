"""Arithmetic on moments, in milliseconds since 1970; the core itself never looks at a clock."""

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


def ms_of(moment: Timestamp) -> int:
    """A protobuf moment in milliseconds; 0 when it is unset."""
    return moment.seconds * 1000 + moment.nanos // 1_000_000


def duration_ms(duration: Duration) -> int:
    """A protobuf duration in milliseconds; 0 when it is unset."""
    return duration.seconds * 1000 + duration.nanos // 1_000_000
