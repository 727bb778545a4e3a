"""Series of one process, and their text for Prometheus.

Counting is a few plain attributes: prometheus_client's own counters take a lock each time, which would cost the journal
more than its rule of 2 % allows. Its text format, and what it knows of processes, is used as it is. A series is counted
by one thread: the event loop, or the writer of the database.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from infra.log import event_logger
from infra.metrics.spec import UNREAD, Counter, Gauge, Histogram, Spec

TEXT = "text/plain; version=0.0.4; charset=utf-8"
TENANT = "tenant"
OTHERS = "other"
SOURCE_SECONDS = 2.0

log = event_logger(__name__)


class Count:
    """One series of a counter or a gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def add(self, amount: float = 1.0) -> None:
        """So much more."""
        self.value += amount

    def set(self, value: float) -> None:
        """As much as this; only of a gauge."""
        self.value = value


class Buckets:
    """One series of a histogram."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """One more, of this size."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Reading(NamedTuple):
    """A value that is looked up when somebody asks, because it stands somewhere already."""

    spec: Gauge | Counter
    value: float
    labels: tuple[str, ...] = ()


Source = Callable[[], Awaitable[Iterable[Reading]]]


class Metrics:
    """The series of a process, made at first use. Whoever counts often keeps what `count` and `buckets` return."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        """`seconds` is the clock's monotonic time, for durations."""
        self.seconds = seconds
        self._counts = defaultdict[tuple[Counter | Gauge, tuple[str, ...]], Count](Count)
        self._buckets: dict[tuple[Histogram, tuple[str, ...]], Buckets] = {}
        self._sources: list[Source] = []

    def count(self, spec: Counter | Gauge, *labels: str) -> Count:
        """The series with these values of its labels, in their order."""
        return self._counts[spec, labels]

    def buckets(self, spec: Histogram, *labels: str) -> Buckets:
        """The same of a histogram."""
        found = self._buckets.get((spec, labels))
        if found is None:
            found = self._buckets[spec, labels] = Buckets(spec.buckets)
        return found

    def read(self, source: Source) -> None:
        """Asks `source` whenever somebody looks."""
        self._sources.append(source)

    async def text(self, tenant: str) -> bytes:
        """Everything, for Prometheus. Tenants other than the one that asks are one, and have no name."""
        readings = await self._readings()
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(_Collected([*self._families(), *_families_of(readings, tenant)]))
        return generate_latest(registry)

    async def _readings(self) -> list[Reading]:
        """What the sources tell. One that breaks, as while the database is away, or takes too long is left out."""
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(_told(source)) for source in self._sources]
        told = [task.result() for task in asked]
        unread = Reading(UNREAD, sum(readings is None for readings in told))
        return [unread, *(reading for readings in told if readings is not None for reading in readings)]

    def _families(self) -> Iterable[Metric]:
        families: dict[Spec, CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily] = {}
        for (spec, labels), count in sorted(self._counts.items(), key=lambda item: item[0][1]):
            family = families.setdefault(spec, _family(spec))
            if not isinstance(family, HistogramMetricFamily):
                family.add_metric(labels, count.value)
        for (histogram, labels), buckets in sorted(self._buckets.items(), key=lambda item: item[0][1]):
            family = families.setdefault(histogram, _family(histogram))
            if isinstance(family, HistogramMetricFamily):
                family.add_metric(labels, _cumulated(buckets), buckets.sum)
        return families.values()


class _NoCount(Count):
    __slots__ = ()

    def add(self, amount: float = 1.0) -> None:
        pass

    def set(self, value: float) -> None:
        pass


class _NoBuckets(Buckets):
    __slots__ = ()

    def observe(self, value: float) -> None:
        pass


class _NoMetrics(Metrics):
    """Counts nothing."""

    _COUNT, _BUCKETS = _NoCount(), _NoBuckets(())

    def __init__(self) -> None:
        super().__init__(float)

    def count(self, spec: Counter | Gauge, *labels: str) -> Count:
        return self._COUNT

    def buckets(self, spec: Histogram, *labels: str) -> Buckets:
        return self._BUCKETS

    def read(self, source: Source) -> None:
        pass

    async def _readings(self) -> list[Reading]:
        return []


NO_METRICS: Metrics = _NoMetrics()
"""For processes that are not to be measured, and for what runs outside of a mesh."""


class _Collected(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._all = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._all


async def _told(source: Source) -> Iterable[Reading] | None:
    try:
        async with asyncio.timeout(SOURCE_SECONDS):
            return await source()
    except Exception as error:  # noqa: BLE001  # whatever it is, it must not keep the others from being seen
        log.warning("metrics.unread", error=error)
        return None


def _family(spec: Spec) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily:
    match spec:
        case Counter():
            return CounterMetricFamily(spec.name, spec.help, labels=spec.labels)
        case Gauge():
            return GaugeMetricFamily(spec.name, spec.help, labels=spec.labels)
        case Histogram():
            return HistogramMetricFamily(spec.name, spec.help, labels=spec.labels)


def _families_of(readings: Iterable[Reading], tenant: str) -> Iterable[Metric]:
    summed = defaultdict[Gauge | Counter, defaultdict[tuple[str, ...], float]](lambda: defaultdict(float))
    for spec, value, labels in readings:
        shown = tuple(
            OTHERS if name == TENANT and label != tenant else label
            for name, label in zip(spec.labels, labels, strict=True)
        )
        summed[spec][shown] += value
    for spec, series in summed.items():
        family = _family(spec)
        if not isinstance(family, HistogramMetricFamily):
            for labels, value in sorted(series.items()):
                family.add_metric(labels, value)
        yield family


def _cumulated(buckets: Buckets) -> list[tuple[str, float]]:
    """How often it was at most as much as each bound."""
    total, cumulated = 0, list[tuple[str, float]]()
    for bound, count in zip((*map(repr, buckets.bounds), "+Inf"), buckets.counts, strict=True):
        total += count
        cumulated.append((bound, float(total)))
    return cumulated
