"""That the benchmark of the core and of the whole application works: none of its figures is asserted."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

from tests.bench import core
from tests.bench.application import ROWS, run
from tests.bench.plays import TALKING, recorded


def test_two_sizes_are_taken_over_and_compared(tmp_path: Path):
    sizes = ["--members", "40,80", "--conferences", "2", "--rounds", "1", "--seconds", "0.3", "--at-once", "2"]
    results = json.loads(run([*sizes, "--folder", str(tmp_path)]).read_text())
    assert set(results["application"]) == {"40", "80"}
    for found in results["application"].values():
        assert found.keys() >= ROWS.keys()
        assert found["joins_joins_per_s"] > 0
    assert results["core"].keys() >= core.MIXES.keys()
    for path in tmp_path.glob("*.svg"):
        assert ET.parse(path).getroot().tag.endswith("svg")


def test_a_play_is_the_same_each_time():
    assert recorded(TALKING, 2) == recorded(TALKING, 2)
