"""The Grafana dashboard queries only metrics that `serve` and `web` really export."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")

DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana.json"
SELECTOR = re.compile(r"(ari_conf_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)="([^"]*)"')
GROUPED = re.compile(r"\bby \(([^)]*)\)")
PROMETHEUS_ADDS = {"instance", "job"}

Series = dict[str, list[dict[str, str]]]
"""The labels of each series, by metric name."""


def expressions(dashboard: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield (panel, PromQL, legend)."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"], target["legendFormat"]


async def scrape(address: str) -> Series:
    async with aiohttp.ClientSession() as client, client.get(f"{address}/metrics") as response:
        assert response.status == 200
        text = await response.text()
    found: Series = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


async def test_each_metric_and_label_of_the_dashboard_is_exposed(stage: Stage) -> None:
    settings = stage.system.settings
    # Metrics with labels appear with the first request.
    await scrape(settings.public_url)
    series = await scrape(f"http://{settings.metrics_listen}") | await scrape(settings.public_url)
    asked = list(expressions(json.loads(DASHBOARD.read_text())))
    assert len(asked) > 30
    for panel, promql, legend in asked:
        names = SELECTOR.findall(promql)
        assert names, f"{panel}: {promql} queries no metric"
        for name, matchers in names:
            assert name in series, f"{panel}: no process exports {name}"
            wanted = MATCHER.findall(matchers)
            fits = [labels for labels in series[name] if all(labels.get(key) == value for key, value in wanted)]
            assert fits, f"{panel}: no {name} has {matchers}"
            groups = {label.strip() for group in GROUPED.findall(promql) for label in group.split(",")}
            shown = set(re.findall(r"\{\{(\w+)\}\}", legend))
            for label in (groups | shown) - PROMETHEUS_ADDS:
                assert all(label in labels for labels in fits), f"{panel}: {name} has no label {label}"


async def test_grafana_accepts_the_dashboard() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    assert {"title", "uid", "schemaVersion", "templating", "time"} <= dashboard.keys()
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(cells) == len(set(cells)), "two panels overlap"
