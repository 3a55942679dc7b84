"""Command line of the chaos test: make chaos CHAOS="--seed 7 --minutes 5"."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from tests import lateness
from tests.chaos.run import PLANTS, Plan, run
from tests.chaos.schedule import BY_NAME, schedule


def main() -> int:
    options = _options()
    seed = random.randrange(100_000) if options.seed is None else options.seed
    plan = Plan(seed, options.minutes, options.callers, tuple(options.only or BY_NAME), frozenset(options.plant))
    faults = schedule(seed, plan.minutes * 60, plan.kinds) if not options.calm else []
    print(f"seed {seed}: again with `make chaos CHAOS='{_again(plan)}'`")
    print("the schedule:", *faults, sep="\n", flush=True)
    if options.plan:
        return 0
    folder = options.folder or Path(tempfile.mkdtemp(prefix="ari_conf-chaos-"))
    print(f"logs: {folder}/logs, {folder}/asterisk/log", flush=True)
    lateness.start()
    began = time.monotonic()
    report = asyncio.run(run(plan, folder, faults, lambda text: print(text, flush=True)))
    print(report.table(), *report.wrong(), sep="\n")
    options.json.write_text(json.dumps(report.json(), indent=1, default=str))
    how = "passed" if report.passed else f"FAILED, seed {seed}"
    print(f"{how}; {time.monotonic() - began:.0f} s; the figures: {options.json}")
    return 0 if report.passed else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description="Kills everything while callers talk, and listens.")
    parser.add_argument("--seed", type=int, help="of the schedule and of what callers do; one at random if not given")
    parser.add_argument("--minutes", type=float, default=2.0, help="how long it lasts (default: 2)")
    parser.add_argument("--callers", type=int, default=25, help="four to a conference (default: 25)")
    parser.add_argument("--only", action="append", choices=sorted(BY_NAME), metavar="KIND", help=_kinds())
    parser.add_argument("--calm", action="store_true", help="no faults at all: what the machine can carry")
    plants = "; ".join(f"{name}: {what}" for name, what in PLANTS.items())
    parser.add_argument(
        "--plant", action="append", default=[], choices=sorted(PLANTS), help=f"a defect that must be found ({plants})"
    )
    parser.add_argument("--plan", action="store_true", help="only print the schedule")
    parser.add_argument("--json", type=Path, default=Path("chaos.json"), help="the figures (default: chaos.json)")
    parser.add_argument("--folder", type=Path, help="where the system keeps what it writes; a new one if not given")
    return parser.parse_args()


def _kinds() -> str:
    return f"only faults of this kind; may be given more than once: {', '.join(sorted(BY_NAME))}"


def _again(plan: Plan) -> str:
    only = "".join(f' --only "{kind}"' for kind in plan.kinds) if len(plan.kinds) < len(BY_NAME) else ""
    return f"--seed {plan.seed} --minutes {plan.minutes:g} --callers {plan.callers}{only}"


if __name__ == "__main__":
    sys.exit(main())
