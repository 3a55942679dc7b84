"""Figures of all turns: each with its goal, and as a ratio within a turn if it is compared with another variant."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

Turn = dict[str, dict[str, Any]]
"""variant -> part -> result."""

NATIVE, BARE, OURS, FLOOR, MIXED = "ConfBridge", "bare", "ours", "ours, floor events", "bare, always mixed"
ANSWERED = "ours, answered first"
"""The dialplan answers before the server learns of the call."""
ERRANDS = "bare, with errands"
"""This variant fetches and writes, and does nothing else: the difference to ari_conf is the cost of its decisions."""


@dataclass(frozen=True)
class Figure:
    name: str
    goal: str
    measured: str
    holds: bool | None
    """None if the figure has no goal."""
    values: tuple[float, ...]
    """The value of each turn."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def figures(turns: list[Turn]) -> list[Figure]:
    found: list[Figure] = []
    for variant in (OURS, FLOOR, ANSWERED, ERRANDS, BARE):
        goal = variant in (OURS, FLOOR)
        found += _ratios(turns, variant, "INVITE to 200, median", "ms", lambda t: t["calls"]["median_ms"], 1.5, goal)
        found += _ratios(turns, variant, "INVITE to 200, p95", "ms", lambda t: t["calls"]["p95_ms"], 2.0, goal)
        found += _ratios(turns, variant, "a pair hears each other", "ms", _heard, 1.2, goal)
        found += _ratios(turns, variant, "CPU of everything, per call", "ms", _all_cpu, 1.25, goal)
        found += _ratios(turns, variant, "CPU of Asterisk, per call", "ms", _asterisk_cpu, 1.0, goal)
    for variant in (OURS, FLOOR):
        found += _absolute(turns, variant, "CPU of the application, per join and leave", "ms", _application_cpu, 2.5)
    for variant in (ERRANDS, BARE):
        found += _absolute(turns, variant, "CPU of the application, per join and leave", "ms", _application_cpu, None)
    for variant in (OURS, FLOOR, BARE):
        found += _ratios(turns, variant, "members held", "", lambda t: t["held"]["held"], -1.0, variant == OURS)
    memory: tuple[tuple[str, float], ...] = (("member", 12.0), ("conference", 40.0))
    for kind, goal_kb in memory:

        def grown(found: dict[str, Any], kind: str = kind) -> float:
            return float(found["memory"]["pss"][f"{kind}_kb"])

        found += _absolute(turns, OURS, f"memory of the application, per {kind}", "KB", grown, goal_kb)
    for variant in (OURS, ERRANDS):
        found += _ratios(
            turns, variant, "joins a second, each within 250 ms", "", lambda t: t["rate"]["highest"], -0.8,
            variant == OURS, BARE,
        )  # fmt: skip
    for beside in (BARE, NATIVE):
        found += _ratios(
            turns, MIXED, "100 in twos, cores of Asterisk", "", lambda t: t["twos"]["cores_per_100"], 1.0, False,
            beside,
        )  # fmt: skip
    return found


def _heard(found: dict[str, Any]) -> float:
    return float(median(found["pairs"]["heard_ms"]))


def _all_cpu(found: dict[str, Any]) -> float:
    return float(sum(found["calls"]["cpu_ms_per_call"].values()))


def _asterisk_cpu(found: dict[str, Any]) -> float:
    return float(found["calls"]["cpu_ms_per_call"]["asterisk"])


def _application_cpu(found: dict[str, Any]) -> float:
    return float(found["calls"]["cpu_ms_per_call"]["application"])


Read = Callable[[dict[str, Any]], float]


def _ratios(
    turns: list[Turn], variant: str, name: str, unit: str, read: Read, goal: float, wanted: bool, beside: str = NATIVE
) -> Iterable[Figure]:
    """Yield the ratio of two variants. `goal`: the maximum; a negative number is a minimum, without its sign."""
    pairs = [(_read(turn, variant, read), _read(turn, beside, read)) for turn in turns]
    known = [(ours, theirs) for ours, theirs in pairs if ours is not None and theirs]
    if not known:
        return
    ratios = sorted(ours / theirs for ours, theirs in known)
    middle = median(ratios)
    beyond = f"{variant} {_many([a for a, _ in known], unit)}, {beside} {_many([b for _, b in known], unit)}"
    sign, bound = ("<=", goal) if goal > 0 else (">=", -goal)
    # A ratio is rounded to the precision of the measurement: 1.004 does not exceed 1.
    holds = round(middle, 2) <= bound if goal > 0 else round(middle, 2) >= bound
    told = f"{middle:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}): {beyond}"
    yield Figure(
        f"{name}: {variant} / {beside}",
        f"{sign} {bound:g}" if wanted else "",
        told,
        holds if wanted else None,
        tuple(ours / theirs for ours, theirs in known),
    )


def _absolute(
    turns: list[Turn], variant: str, name: str, unit: str, read: Read, goal: float | None
) -> Iterable[Figure]:
    values = [value for turn in turns if (value := _read(turn, variant, read)) is not None]
    if not values:
        return
    middle, low, high = median(values), min(values), max(values)
    told = f"{middle:.1f} {unit} ({low:.1f} to {high:.1f})"
    holds = None if goal is None else round(middle, 1) <= goal
    yield Figure(f"{name}: {variant}", "" if goal is None else f"<= {goal:g} {unit}", told, holds, tuple(values))


def _read(turn: Turn, variant: str, read: Read) -> float | None:
    try:
        return float(read(turn[variant]))
    except KeyError:  # this part was not measured for the variant
        return None


def _many(values: list[float], unit: str) -> str:
    return f"{median(values):.3g} {unit}".strip()


def markdown(found: list[Figure]) -> str:
    rows = [f"| {f.name} | {f.goal} | {f.measured} | {_word(f.holds)} |" for f in found]
    return "\n".join(
        ("| figure | goal | median of the turns (lowest to highest) | holds |", "|---|---|---|---|", *rows)
    )


def _word(holds: bool | None) -> str:
    return "" if holds is None else "yes" if holds else "**no**"
