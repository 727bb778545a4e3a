"""Metrics: what is counted (`catalogue.py`), how it is counted and shown (`series.py`).

One set of series per process, and names after the conventions of Prometheus and OpenTelemetry: `_total` only goes up,
units are `_seconds` and `_bytes`. No label names a run, a mission or a step, so that the number of series is bounded.
"""

from infra.metrics.series import NO_METRICS, Metrics, Reading
from infra.metrics.spec import Counter, Gauge, Histogram, Spec

__all__ = ["NO_METRICS", "Counter", "Gauge", "Histogram", "Metrics", "Reading", "Spec"]
