"""The dashboard and the alert rules name metrics that exist, and the alerts fire when something is wrong."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.metrics import METRICS

GRAFANA = Path(__file__).resolve().parents[2] / "cluster" / "grafana"
EXIST = {name for metric in METRICS for name in metric.queried}
WORDS = {
    *("by", "on", "and", "or", "unless", "max", "min", "sum", "rate", "time"),
    *("max_over_time", "histogram_quantile", "label_values"),
}
TOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(TOOL is None, reason="there is no promtool (Debian: apt-get install prometheus)")


def metrics_in(expression: str) -> set[str]:
    """Names of metrics in a PromQL expression: what is left when all else that can be a word is taken away."""
    text = re.sub(r'"[^"]*"', "", expression)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", text)  # label matchers, ranges
    text = re.sub(r"\b(by|on)\s*\([^)]*\)", "", text)
    return set(re.findall(r"\b[a-zA-Z_:][\w:]*", text)) - WORDS


def panels() -> list[dict[str, Any]]:
    return json.loads((GRAFANA / "dashboard.json").read_text(encoding="utf-8"))["panels"]


def queries() -> Iterator[str]:
    for panel in panels():
        yield from (target["expr"] for target in panel.get("targets", []))


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load((GRAFANA / "alerts.yml").read_text())["groups"] for rule in group["rules"]]


def test_the_reader_of_expressions_finds_metrics_and_nothing_else():
    assert metrics_in('sum by (le, run) (rate(a_bucket{run=~"b"}[5m])) > 0.5 * c and on (run) d - time()') == {
        *("a_bucket", "c", "d")
    }


def test_the_dashboard_has_its_rows_and_every_query_names_what_exists():
    assert [panel["title"] for panel in panels() if panel["type"] == "row"] == [
        *("Run", "Roles", "Rollouts", "Trainer", "Endpoint")
    ]
    named = [metrics_in(query) for query in queries()]
    assert all(len(names) == 1 and names <= EXIST for names in named), named
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_the_dashboard_shows_every_metric():
    shown = set().union(*(metrics_in(query) for query in queries()))
    assert [metric.name for metric in METRICS if not shown & set(metric.queried)] == []


def test_panels_do_not_overlap():
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_every_alert_names_what_exists():
    assert [rule["alert"] for rule in rules()] == [
        *("ChimedRoleDead", "ChimedStepStalled", "ChimedKLHigh", "ChimedEngineTrainerDrift", "ChimedDiskLow")
    ]
    for rule in rules():
        assert metrics_in(rule["expr"]), rule
        assert metrics_in(rule["expr"]) <= EXIST
        assert set(rule["annotations"]) == {"summary", "description"}


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run([str(TOOL), *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_prometheus_accepts_the_rules():
    assert "SUCCESS: 5 rules found" in promtool("check", "rules", GRAFANA / "alerts.yml")


@needs_promtool
def test_each_alert_fires_in_a_planted_failure_and_not_before():
    assert "SUCCESS" in promtool("test", "rules", Path(__file__).with_name("alerts.test.yml"))
