"""Command line of the experiment: python -m tests.chaos.taps."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

from ari_conf.local import asterisk
from tests.chaos.taps.run import Run
from tests.chaos.taps.transports import CANDIDATES, OURS


def main() -> int:
    options = _options()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="ari_conf-taps-"))
    where = asterisk.install()
    results = []
    for candidate in options.candidate or [OURS]:
        began = time.monotonic()
        (folder / candidate).mkdir(parents=True, exist_ok=True)
        outbound = options.socket == "outbound"
        run = Run(candidate, options.kills, options.seed, folder / candidate, where, outbound)
        result = asyncio.run(run.run(lambda line: print(line, flush=True)))
        results.append(result)
        print(f"{candidate}: {time.monotonic() - began:.0f} s", *dict.fromkeys(result.wrong), sep="\n  ", flush=True)
    print(*(result.line() for result in results), sep="\n")
    options.json.write_text(json.dumps([result.json() for result in results], indent=1))
    return 0 if all(result.passed for result in results) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.taps",
        description="Kills (SIGKILL) and stops (SIGSTOP) the receiver of a channel's sound at random moments: idle, "
        "starting, streaming, ending; beside a conference of real phones that is listened to. Ends with 0 if Asterisk "
        "lived, answered, and let nobody hear a gap.",
    )
    parser.add_argument(
        "candidate", nargs="*", metavar="CANDIDATE", help=f"one of {', '.join(CANDIDATES)} (default: {OURS})"
    )
    parser.add_argument("--kills", type=int, default=200, help="of each (default: 200)")
    parser.add_argument(
        "--socket",
        choices=("inbound", "outbound"),
        default="inbound",
        help="who opens the events' WebSocket, which dies as well: we, or Asterisk (default: inbound)",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default: 1)")
    parser.add_argument("--json", type=Path, default=Path("taps.json"), help="the figures (default: taps.json)")
    parser.add_argument("--folder", type=Path, help="where Asterisk keeps what it writes; a new one if not given")
    options = parser.parse_args()
    if unknown := set(options.candidate) - set(CANDIDATES):
        parser.error(f"no such candidate: {', '.join(sorted(unknown))}; there are {', '.join(CANDIDATES)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
