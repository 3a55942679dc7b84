"""`make bench-core`: the core alone, and the whole server against a fake ARI server, at 1,000 to 100,000 members.

The whole server is `ari-conf serve` as a process, with a real Redis, the real ARI protocol on a real WebSocket and over
HTTP, and an answer URL; only audio is missing. Figures are CPU times, which a busy machine increases too. The ratios
between the sizes, measured in turns, count.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench import charts, core, scale

FOLDER = Path(".local/bench-core")
FLAT = 1.2
GOALS = {
    "start_up_s": "100,000 in < 10 s",
    "joins_cpu_ms_per_join_and_leave": "<= 2.5",
    "joins_beside_the_smallest": f"<= {FLAT}",
    "talks_beside_the_smallest": f"<= {FLAT}",
}
ROWS = {
    "start_up_s": "start-up until a new caller is in their conference, s",
    "start_up_cpu_s": "CPU of that, s",
    "rss_mb": "memory of the process, MB",
    "state_bytes": "state in Redis, bytes",
    "joins_cpu_ms_per_join_and_leave": "CPU per join and leave, ms",
    "joins_cpu_us_per_event": "joins and leaves: CPU per ARI event, us",
    "joins_beside_the_smallest": "  beside the smallest size, of the same round",
    "joins_events_per_cpu_s": "  events a second on one core",
    "joins_joins_per_s": "  joins and leaves a second",
    "joins_median_ms": "  from StasisStart to being in the bridge, median ms",
    "joins_p99_ms": "  99 of 100 within ms",
    "joins_stall_ms": "  longest time without an answer, ms",
    "talks_cpu_us_per_event": "with talking: CPU per ARI event, us",
    "talks_beside_the_smallest": "  beside the smallest size, of the same round",
    "talks_events_per_cpu_s": "  events a second on one core",
    "talks_stall_ms": "  longest time without an answer, ms",
}

console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)


def progress(text: str) -> None:
    console.print(f"{time.strftime('%H:%M:%S')}  {text}", style="dim")


def of_the_core(conferences: int, rounds: int) -> dict[str, float]:
    found: dict[str, float] = {}
    table = Table("the core alone", "goal", "found", box=None, pad_edge=False)
    for name, mix in core.MIXES.items():
        rates, number = core.rates(mix, conferences, rounds)
        found[name] = max(rates)
        low, high = min(rates), max(rates)
        goal = "200,000" if name == "a meeting" else ""
        table.add_row(f"{name}: events/s, best of {rounds}", goal, f"{high:,.0f} ({low:,.0f}; {number} events)")
    found["member_bytes"], found["conference_bytes"] = core.weights(min(conferences, 100))
    table.add_row("memory of a member and their call, KB", "<= 12", f"{found['member_bytes'] / 1024:.1f}")
    table.add_row("memory of a conference, KB", "<= 40", f"{found['conference_bytes'] / 1024:.1f}")
    console.print(table)
    return found


def of_the_whole(sizes: list[int], rounds: int, seconds: float, at_once: int) -> dict[int, dict[str, float]]:
    found = {s.members: s.found for s in scale.in_turns(sizes, rounds, seconds, at_once, progress)}
    if len(sizes) > 1:
        first, last = min(sizes), max(sizes)
        kb = (found[last]["rss_mb"] - found[first]["rss_mb"]) * 1024 / (last - first)
        for size in sizes:
            found[size]["kb_per_member"] = kb
    table = Table("the whole application, members", "goal", *(f"{size:,}" for size in sizes), box=None, pad_edge=False)
    for name, words in ROWS.items():
        table.add_row(words, GOALS.get(name, ""), *(_shown(found[size][name]) for size in sizes))
    if len(sizes) > 1:
        table.add_row("memory of the process, KB per member (its share of the conference in it)", "<= 12", _shown(kb))
    console.print(table)
    return found


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def drawn(folder: Path, found: dict[int, dict[str, float]]) -> None:
    for name, title in (("joins", "Joins and leaves"), ("talks", "With talking")):
        bars = {f"{size:,}": {"CPU": values[f"{name}_cpu_us_per_event"]} for size, values in found.items()}
        charts.bars(folder / f"{name}.svg", f"{title}: CPU per event, by members held", "us", bars)
    seconds = {f"{size:,}": {"seconds": values["start_up_s"]} for size, values in found.items()}
    charts.bars(folder / "start-up.svg", "Taking over: until a new caller is in", "s", seconds)


def run(arguments: list[str] | None = None) -> Path:
    """Run the benchmark and return the file with the results."""
    parser = argparse.ArgumentParser(prog="make bench-core", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--members", default="1000,10000,100000", help="sizes, by comma; 0: the core alone")
    parser.add_argument("--conferences", type=int, default=100, help="for the core alone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each size in a round")
    parser.add_argument("--at-once", type=int, default=16, help="callers who are leaving and coming at any time")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="for results.json and the charts")
    given = parser.parse_args(arguments)
    sizes = sorted(int(size) for size in given.members.split(",") if int(size))
    given.folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, object] = {
        "when": time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "core": of_the_core(given.conferences, given.rounds),
    }
    if sizes:
        found = of_the_whole(sizes, given.rounds, given.seconds, given.at_once)
        results["application"] = found
        drawn(given.folder, found)
    path: Path = given.folder / "results.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    console.print(f"{path} has them; beside it the charts", style="dim")
    return path


if __name__ == "__main__":
    run()
