"""Charts of `make bench`, from the results of its turns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean, median
from typing import Any

from tests.bench import charts
from tests.bench.sip_figures import Turn
from tests.bench.sip_held import LOST
from tests.bench.sip_parts import JOINED_WITHIN_MS


def draw(turns: list[Turn], folder: Path) -> list[Path]:
    """Draw the charts for which figures exist, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn: list[Path] = []
    calls = _part(turns, "calls")
    if calls:
        drawn.append(folder / "cpu.svg")
        charts.bars(drawn[-1], "CPU per call, all in all", "ms", {name: _cpu(of) for name, of in calls.items()})
        drawn.append(folder / "answered.svg")
        charts.lines(
            drawn[-1],
            "INVITE to 200 at 60 calls/s",
            ("share of the calls, %", "ms"),
            {name: _percentiles(of) for name, of in calls.items()},
        )
    pairs = _part(turns, "pairs")
    if pairs:
        drawn.append(folder / "pairs.svg")
        heard = {name: {"median": median(ms for one in of for ms in one["heard_ms"])} for name, of in pairs.items()}
        charts.bars(drawn[-1], "The second's INVITE until both hear each other", "ms", heard)
    held = _part(turns, "held")
    if held:
        drawn.append(folder / "held.svg")
        charts.lines(
            drawn[-1],
            "Members held: of a tone is missing",
            ("members", "%"),
            {name: [(s["members"], s["lost"] * 100) for s in of[-1]["steps"]] for name, of in held.items()},
            LOST * 100,
        )
    rate = _part(turns, "rate")
    if rate:
        drawn.append(folder / "rate.svg")
        charts.lines(
            drawn[-1],
            "INVITE until in the bridge, the longest",
            ("joins a second", "ms"),
            {name: [(float(at), ms) for at, ms in of[-1]["longest_join_ms"].items()] for name, of in rate.items()},
            JOINED_WITHIN_MS,
        )
    return drawn


def _part(turns: list[Turn], part: str) -> dict[str, list[Any]]:
    """Return variant -> results of each turn."""
    found: dict[str, list[Any]] = {}
    for turn in turns:
        for variant, parts in turn.items():
            if part in parts:
                found.setdefault(variant, []).append(parts[part])
    return found


def _cpu(found: list[Mapping[str, Any]]) -> dict[str, float]:
    names = found[0]["cpu_ms_per_call"]
    return {name: mean(one["cpu_ms_per_call"][name] for one in found) for name in names}


def _percentiles(found: list[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """Return the percentiles up to the 99th: above it a single call decides."""
    took = sorted(ms for one in found for ms in one["answered_ms"])
    return [(share, took[min(len(took) - 1, len(took) * share // 100)]) for share in range(100)]
