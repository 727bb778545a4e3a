"""What a series is, before anything is counted. Two are the same when they are one object, which is quick to tell."""

from __future__ import annotations

from dataclasses import dataclass

FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: of a commit or of a call."""
SLOW = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Seconds: of something that a browser or a person does."""
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)


@dataclass(frozen=True, slots=True, eq=False)
class Counter:
    """Only goes up; its name ends in `_total`."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Gauge:
    """How something stands now."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """How often something was at most as much as each of `buckets`."""

    name: str
    help: str
    buckets: tuple[float, ...]
    labels: tuple[str, ...] = ()


Spec = Counter | Gauge | Histogram

UNREAD = Gauge("skyagent_metrics_unread", "Parts of the process that could not be asked just now; theirs are missing.")
