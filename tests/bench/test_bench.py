"""Tests of the benchmark. Its figures need an idle machine, so none of them is asserted."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.bench.__main__ import run
from tests.bench.sip_figures import figures, markdown
from tests.bench.sip_parts import TINY


def test_all_variants_take_calls_and_are_compared(tmp_path: Path):
    # With floor events ari_conf does everything that it does without, and more.
    variants = ("ConfBridge", "bare", "ours, floor events")
    found = run(["calls"], 1, TINY, tmp_path, variants)
    [turn] = json.loads((tmp_path / "results.json").read_text())["turns"]
    assert set(turn) == set(variants)
    for variant in turn.values():
        assert variant["calls"]["failed"] == 0 and len(variant["calls"]["answered_ms"]) == TINY.calls
    assert "INVITE to 200, median: ours, floor events / ConfBridge" in {figure.name for figure in found}
    assert {name: set(variant["calls"]["cpu_ms_per_call"]) for name, variant in turn.items()} == {
        "ConfBridge": {"asterisk"},
        "bare": {"asterisk", "application"},
        "ours, floor events": {"asterisk", "application", "worker", "redis"},
    }
    charts = {path.name: ET.parse(path).getroot() for path in tmp_path.glob("*.svg")}
    assert set(charts) == {"cpu.svg", "answered.svg"}


def test_a_ratio_is_that_of_one_turn():
    def turn(ours: float, native: float) -> dict[str, dict[str, dict[str, float]]]:
        calls = {"median_ms": 1.0, "p95_ms": 1.0, "cpu_ms_per_call": {"asterisk": 1.0, "application": 1.0}}
        return {
            "ours": {"calls": calls | {"median_ms": ours}},
            "ConfBridge": {"calls": calls | {"median_ms": native}},
        }

    # In the second turn the machine was busy for both variants.
    found = {f.name: f for f in figures([turn(1.2, 1.0), turn(12.0, 10.0), turn(1.6, 1.0)])}
    median = found["INVITE to 200, median: ours / ConfBridge"]
    assert median.values == pytest.approx((1.2, 1.2, 1.6)) and median.holds is True
    assert found["CPU of Asterisk, per call: ours / ConfBridge"].holds is True
    assert found["CPU of everything, per call: ours / ConfBridge"].holds is True
    assert "1.20 (1.20 to 1.60)" in markdown([median])


def test_a_missing_measurement_is_no_figure():
    assert figures([{"ours": {}}]) == []
