"""How many events a second the core alone takes, on one processor core."""

from __future__ import annotations

import gc
import time
from collections import Counter
from itertools import count

from ari_conf.core import events as ev
from ari_conf.core.directory import Directory
from tests.bench.plays import JOINS, TALKING, Mix, recorded

MIXES = {"a meeting": TALKING, "joins and leaves only": JOINS}


def replay(events: list[tuple[int, ev.Event]]) -> tuple[float, int]:
    """CPU seconds, and how many effects there were. As `serve` asks the core, and nothing else."""
    ids = count(1)
    directory = Directory(lambda: f"00000000-0000-4000-8000-{next(ids):012x}")
    # The arrivals' ids are events' own, and the recorder took them from the same counter.
    effects = 0
    gc.collect()
    gc.freeze()  # as `serve` does once it is up
    began = time.process_time()
    for now, event in events:
        if type(event) is ev.CallArrived:
            next(ids), next(ids)
        effects += len(directory.receive(event, now))
        directory.touched()
        directory.deadline  # noqa: B018
    spent = time.process_time() - began
    assert not directory.calls and not directory.conferences, "the play has not come to its end"
    return spent, effects


def rate(mix: Mix, conferences: int, rounds: int = 3) -> tuple[float, int, Counter[str]]:
    """Events a second in the best round, how many events there were, and of which kinds."""
    events = recorded(mix, conferences)
    best = min(replay(events)[0] for _ in range(rounds))
    return len(events) / best, len(events), Counter(type(event).__name__ for _, event in events)


if __name__ == "__main__":
    for name, mix in MIXES.items():
        found, number, kinds = rate(mix, 50)
        print(f"{name}: {found:.0f} events/s ({number} events), {1e6 / found:.1f} us each")
        print("  ", dict(kinds.most_common()))
