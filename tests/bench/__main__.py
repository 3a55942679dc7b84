"""`make bench`: ConfBridge(), a bare Stasis application and ari_conf, compared on a real Asterisk with SIP callers.

The variants alternate: A B C D, A B C D, …. Each turn runs every variant once, each part of it on a fresh Asterisk. The
ratios within a turn count: other machines have other figures, and on this one other programs may run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench import sip_charts, sip_held, sip_parts
from tests.bench.sip_figures import ANSWERED, BARE, ERRANDS, FLOOR, MIXED, NATIVE, OURS, Figure, Turn, figures, markdown
from tests.bench.sip_parts import QUICK, TINY, Found, Size
from tests.bench.sip_variants import VARIANTS, Stand, standing

PARTS: dict[str, tuple[Callable[[Stand, Size], Awaitable[Found]], tuple[str, ...]]] = {
    "calls": (sip_parts.calls, (NATIVE, BARE, ERRANDS, OURS, FLOOR, ANSWERED)),
    "pairs": (sip_parts.pairs, (NATIVE, BARE, OURS)),
    # ConfBridge() reports no joins of members, so ari_conf is compared with the bare application.
    "rate": (sip_parts.rate, (BARE, ERRANDS, OURS)),
    "held": (sip_held.held, (NATIVE, OURS)),
    "memory": (sip_parts.memory, (OURS,)),
    "twos": (sip_parts.twos, (BARE, MIXED, NATIVE)),
}
"""The parts of the benchmark, with their variants."""

console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def progress(text: str) -> None:
    console.print(f"{time.strftime('%H:%M:%S')}  {text}", style="dim")


async def go(parts: list[str], turns: int, size: Size, only: Collection[str]) -> list[Turn]:
    found: list[Turn] = []
    for number in range(turns):
        turn: Turn = {}
        found.append(turn)
        for part in parts:
            measure, variants = PARTS[part]
            for variant in [name for name in variants if name in only]:
                began = time.monotonic()
                async with standing(variant) as stand:
                    result = await measure(stand, size)
                turn.setdefault(variant, {})[part] = result
                told = f"turn {number + 1} of {turns}, {part}, {variant}: {_short(result)}"
                progress(f"{told} ({time.monotonic() - began:.0f} s)")
    return found


def _short(found: Found) -> str:
    """Return a summary of one line."""
    match found:
        case {"median_ms": median, "p95_ms": p95, "cpu_ms_per_call": cpu, "machine_busy": busy}:
            used = ", ".join(f"{name} {ms:.1f}" for name, ms in cpu.items())
            return f"200 after {median:.1f} ms (p95 {p95:.1f}); CPU in ms: {used}; machine {busy:.0%} busy"
        case {"heard_ms": heard}:
            return f"heard after {sorted(heard)[len(heard) // 2]:.0f} ms"
        case {"highest": highest}:
            return f"{highest:.0f}/s"
        case {"held": held, "at_the_limit": limit}:
            return f"{held}" if limit else f"{held} or more"
        case {"cores_per_100": cores}:
            return f"{cores:.3f} cores of Asterisk for 100 members in twos"
        case {"pss": pss}:
            return f"{pss['member_kb']:.1f} KB a member, {pss['conference_kb']:.1f} KB a conference"
    return ""


def show(found: list[Figure]) -> None:
    table = Table("figure", "goal", "median of the turns (lowest to highest)", "holds", box=None, pad_edge=False)
    for one in found:
        table.add_row(one.name, one.goal, one.measured, "" if one.holds is None else "yes" if one.holds else "NO")
    console.print()
    console.print(table)


def machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    return {
        "processor": ", ".join(sorted(names)),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_at_the_start": os.getloadavg()[0],
        "at": time.strftime("%F %T"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all if none is named")
    parser.add_argument("--only", action="append", choices=VARIANTS, help="this variant, and others so named")
    parser.add_argument("--turns", type=int, help="how often each variant has its go (3; with --quick 1)")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="fewer and shorter calls: some eight minutes, rough")
    size.add_argument("--tiny", action="store_true", help="a handful of calls: shows only that it works")
    parser.add_argument("--out", type=Path, default=Path(".local/bench"), help="folder for results.json and the charts")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}: choose from {', '.join(PARTS)}")
    short = given.quick or given.tiny
    run(
        given.parts or list(PARTS),
        given.turns or (1 if short else 3),
        TINY if given.tiny else QUICK if given.quick else Size(),
        given.out,
        given.only or tuple(VARIANTS),
    )


def run(parts: list[str], turns: int, size: Size, out: Path, only: Collection[str] = tuple(VARIANTS)) -> list[Figure]:
    """Measure the parts with the variants in `only`, and write the results."""
    about = machine()
    progress(
        f"{turns} turn{'s' if turns > 1 else ''} of {', '.join(parts)}; load of the machine {os.getloadavg()[0]:.1f}"
    )
    measured = asyncio.run(go(parts, turns, size, only))
    found = figures(measured)
    drawn = sip_charts.draw(measured, out)
    results = {"machine": about, "figures": [figure.as_json() for figure in found], "turns": measured}
    (out / "results.json").write_text(json.dumps(results, indent=1))
    (out / "table.md").write_text(markdown(found) + "\n")
    show(found)
    progress(f"{out / 'results.json'}, table.md, {', '.join(path.name for path in drawn)}")
    return found


if __name__ == "__main__":
    main()
