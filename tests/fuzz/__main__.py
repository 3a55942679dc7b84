"""Coverage-guided fuzzing: `python -m tests.fuzz [--seconds 60] [target …]`, or `make fuzz FUZZ="--seconds 60"`.

Each target runs in a process of its own, one after another. The table at the end has the number of inputs tried. Inputs
that failed are in --folder, and `--again FILE target` repeats one. Corpora are kept there and grow.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz import seeds
from tests.fuzz.targets import TARGETS

SLOWEST_S = 5
"""The limit for one input in seconds: a caller may be waiting for the document."""
MAX_MB = 1024
LENGTHS = {"document": 110_000, "speech": 60_000, "events": 600, "state": 400, "bodies": 70_000, "wire": 200_000}


@dataclass(frozen=True)
class Tried:
    target: str
    inputs: int
    edges: int
    slowest_s: int
    peak_mb: int
    found: str

    def row(self) -> str:
        return f"| {self.target} | {self.inputs:,} | {self.edges} | {self.slowest_s} | {self.peak_mb} | {self.found} |"


HEAD = "| target | inputs tried | edges reached | slowest, s | memory, MB | found |\n|---|---|---|---|---|---|"


def fuzz(target: str, seconds: int, folder: Path) -> Tried:
    corpus, found = folder / "corpus" / target, folder / "found"
    for each in (corpus, found):
        each.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds.of(target)):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = folder / f"{target}.dict"
    words.write_text("".join(f"{json.dumps(word)}\n" for word in seeds.words(target)))
    bounds = (f"-max_total_time={seconds}", f"-timeout={SLOWEST_S}", f"-rss_limit_mb={MAX_MB}",
              f"-max_len={LENGTHS.get(target, 4096)}", "-print_final_stats=1", f"-artifact_prefix={found}/{target}-",
              f"-dict={words}")  # fmt: skip
    command = [sys.executable, "-m", "tests.fuzz.one", target, *bounds, str(corpus)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    said = done.stdout + done.stderr
    numbers = {name: int(value) for name, value in re.findall(r"stat::(\w+):\s+(\d+)", said)}
    edges = [int(edge) for edge in re.findall(r"\bcov: (\d+)", said)]
    kept = re.findall(r"Test unit written to (\S+)", said)
    if done.returncode:
        print(re.sub(r"(?m)^(#\d|INFO|WARNING).*\n", "", said)[-6000:], file=sys.stderr)
    return Tried(
        target,
        numbers.get("number_of_executed_units", 0),
        max(edges, default=0),
        numbers.get("slowest_unit_time_sec", 0),
        numbers.get("peak_rss_mb", 0),
        kept[-1] if kept else "nothing" if done.returncode == 0 else f"it ended with {done.returncode}",
    )


def main() -> int:
    asked = argparse.ArgumentParser(prog="make fuzz", description=(__doc__ or "").partition("\n\n")[2])
    asked.add_argument("targets", nargs="*", metavar="target", help=f"of {', '.join(TARGETS)}; none: all of them")
    asked.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    asked.add_argument("--folder", type=Path, default=Path(".local/fuzz"), help="of corpora and of what is found")
    asked.add_argument("--again", type=Path, help="try the input in this file once more")
    given = asked.parse_args()
    if wrong := set(given.targets) - set(TARGETS):
        asked.error(f"there is no target {', '.join(sorted(wrong))}: there are {', '.join(TARGETS)}")
    if given.again:
        for target in given.targets or TARGETS:
            TARGETS[target](given.again.read_bytes())
        return 0
    os.nice(10)
    tried = []
    print(HEAD, flush=True)
    for target in given.targets or TARGETS:
        tried.append(fuzz(target, given.seconds, given.folder))
        print(tried[-1].row(), flush=True)
    print(f"{sum(t.inputs for t in tried):,} inputs tried")
    return int(any(t.found != "nothing" for t in tried))


if __name__ == "__main__":
    sys.exit(main())
