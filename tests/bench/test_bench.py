"""That the benchmark works, and that a call has not become twice as expensive.

Its other figures are for a quiet machine, and none of them is asserted.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.bench.__main__ import run
from tests.bench.calibrated import step_us
from tests.bench.sip_figures import figures, markdown
from tests.bench.sip_parts import TINY

CALL_STEPS = 23_000
"""What a call costs the application, in steps of the calibrated loop."""
SLOWER = 1.7


def test_all_variants_take_calls_and_are_compared(tmp_path: Path):
    # With floor events ours does all that it does without.
    variants = ("ConfBridge", "bare", "ours, floor events")
    before = step_us()
    found = run(["calls"], 1, TINY, tmp_path, variants)
    step = max(before, step_us())
    [turn] = json.loads((tmp_path / "results.json").read_text())["turns"]
    assert set(turn) == set(variants)
    for variant in turn.values():
        assert variant["calls"]["failed"] == 0 and len(variant["calls"]["answered_ms"]) == TINY.calls
    assert "INVITE to 200, median: ours, floor events / ConfBridge" in {figure.name for figure in found}
    cpu = {name: variant["calls"]["cpu_ms_per_call"] for name, variant in turn.items()}
    print(f"{cpu}; a step: {step:.3f} us")
    assert cpu["ours, floor events"]["application"] * 1000 / step < CALL_STEPS * SLOWER
    assert cpu["ours, floor events"]["asterisk"] < 2 * cpu["ConfBridge"]["asterisk"]
    charts = {path.name: ET.parse(path).getroot() for path in tmp_path.glob("*.svg")}
    assert set(charts) == {"cpu.svg", "answered.svg"}


def test_a_ratio_is_that_of_one_turn():
    def turn(ours: float, native: float) -> dict[str, dict[str, dict[str, float]]]:
        calls = {"median_ms": 1.0, "p95_ms": 1.0, "cpu_ms_per_call": {"asterisk": 1.0, "application": 1.0}}
        return {
            "ours": {"calls": calls | {"median_ms": ours}},
            "ConfBridge": {"calls": calls | {"median_ms": native}},
        }

    # In the second turn the machine was busy, for both.
    found = {f.name: f for f in figures([turn(1.2, 1.0), turn(12.0, 10.0), turn(1.6, 1.0)])}
    median = found["INVITE to 200, median: ours / ConfBridge"]
    assert median.values == pytest.approx((1.2, 1.2, 1.6)) and median.holds is True
    assert found["CPU of Asterisk, per call: ours / ConfBridge"].holds is True
    assert found["CPU of everything, per call: ours / ConfBridge"].holds is True
    assert "1.20 (1.20 to 1.60)" in markdown([median])


def test_what_was_not_measured_is_no_figure():
    assert figures([{"ours": {}}]) == []
