from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from infra.clock import ManualClock
from infra.metrics import NO_METRICS, Counter, Gauge, Histogram, Metrics, Reading
from infra.metrics import catalogue as known

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "infra" / "grafana" / "dashboards" / "mission-health.json"
ALERTS = ROOT / "infra" / "prometheus" / "alerts.yaml"
SCRAPE = ROOT / "infra" / "prometheus" / "prometheus.yaml"
SUFFIXES = {Counter: ("",), Gauge: ("",), Histogram: ("_bucket", "_sum", "_count")}
BOUNDED = {
    "check", "code", "effect_class", "kind", "method", "node", "outcome", "phase", "reason", "tenant", "version",
}  # fmt: skip
"""Labels whose values are those of an enum, of the contracts or of the process; a tenant is one's own, or other."""


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(ManualClock().monotonic)


async def shown(metrics: Metrics, tenant: str = "mine") -> dict[tuple[str, tuple[str, ...]], float]:
    text = (await metrics.text(tenant)).decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, tuple(sample.labels.values())): sample.value for sample in samples}


async def test_what_was_counted_is_shown(metrics: Metrics) -> None:
    metrics.count(known.JOURNAL_REFUSALS, "DISK_FULL").add()
    metrics.count(known.JOURNAL_REFUSALS, "DISK_FULL").add(2)
    metrics.count(known.WATCHERS).set(7)
    found = await shown(metrics)
    assert found["skyagent_journal_refusals_total", ("DISK_FULL",)] == 3
    assert found["skyagent_watchers", ()] == 7


async def test_buckets_hold_what_was_at_most_as_much(metrics: Metrics) -> None:
    durations = metrics.buckets(known.JOURNAL_APPEND)
    for seconds in (0.001, 0.0011, 99.0):
        durations.observe(seconds)
    found = await shown(metrics)
    assert found["skyagent_journal_append_seconds_bucket", ("0.001",)] == 1
    assert found["skyagent_journal_append_seconds_bucket", ("0.0025",)] == 2
    assert found["skyagent_journal_append_seconds_bucket", ("10.0",)] == 2
    assert found["skyagent_journal_append_seconds_bucket", ("+Inf",)] == 3
    assert found["skyagent_journal_append_seconds_count", ()] == 3
    assert found["skyagent_journal_append_seconds_sum", ()] == pytest.approx(99.0021)


async def test_other_tenants_are_one_and_have_no_name(metrics: Metrics) -> None:
    async def read() -> Iterable[Reading]:
        return [
            Reading(known.APPROVALS_OPEN, number, (tenant,)) for tenant, number in (("mine", 1), ("a", 2), ("b", 4))
        ]

    metrics.read(read)
    found = await shown(metrics)
    assert found["skyagent_approvals_open", ("mine",)] == 1
    assert found["skyagent_approvals_open", ("other",)] == 6
    assert b'"a"' not in await metrics.text("mine")


async def test_a_part_that_cannot_be_asked_leaves_the_rest_readable(metrics: Metrics) -> None:
    async def away() -> Iterable[Reading]:
        raise ConnectionError("the database is away")

    async def read() -> Iterable[Reading]:
        return [Reading(known.RUNS_OWNED, 3)]

    metrics.read(away)
    metrics.read(read)
    found = await shown(metrics)
    assert found["skyagent_runs_owned", ()] == 3
    assert found["skyagent_metrics_unread", ()] == 1


async def test_nothing_is_counted_where_nothing_is_to_be() -> None:
    NO_METRICS.count(known.WATCHERS).add()
    NO_METRICS.buckets(known.JOURNAL_APPEND).observe(1.0)
    assert b"skyagent" not in await NO_METRICS.text("mine")


@pytest.mark.parametrize("spec", known.every_metric(), ids=lambda spec: spec.name)
def test_names_follow_the_conventions_and_labels_are_bounded(spec: Counter | Gauge | Histogram) -> None:
    assert re.fullmatch(r"skyagent_[a-z_]+", spec.name)
    assert spec.name.endswith("_total") == isinstance(spec, Counter)
    assert isinstance(spec, Gauge | Counter) or spec.name.endswith(("_seconds", "_writes"))
    assert set(spec.labels) <= BOUNDED
    assert spec.help.endswith(".")


def test_every_name_is_one_metric() -> None:
    names = [spec.name for spec in known.every_metric()]
    assert len(set(names)) == len(names)


def test_dashboard_and_alerts_name_only_metrics_that_there_are() -> None:
    there = {spec.name + suffix for spec in known.every_metric() for suffix in SUFFIXES[type(spec)]}
    named = {name for expression in expressions() for name in re.findall(r"\bskyagent_\w+", expression)}
    assert named - there == set()
    assert len(named) > 25


def test_dashboard_and_alerts_use_only_labels_that_their_metrics_have() -> None:
    labels = {name for spec in known.every_metric() for name in spec.labels} | {"instance", "le", "job"}
    for expression in expressions():
        grouped = re.findall(r"\b(?:by|on) \(([^)]*)\)", expression)
        assert {label.strip() for group in grouped for label in group.split(",")} <= labels, expression


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    taken = set[tuple[int, int]]()
    for panel in panels():
        at = cast("dict[str, int]", panel["gridPos"])
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_every_alert_says_what_is_wrong_and_what_to_do() -> None:
    rules = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
    for rule in rules:
        assert set(rule["annotations"]) == {"summary", "action"}, rule["alert"]
    assert yaml.safe_load(SCRAPE.read_text())["rule_files"] == [ALERTS.name]


def panels() -> list[dict[str, object]]:
    return json.loads(DASHBOARD.read_text())["panels"]


def expressions() -> Iterator[str]:
    for panel in panels():
        for target in cast("list[dict[str, str]]", panel.get("targets", [])):
            yield target["expr"]
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]
