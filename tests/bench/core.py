"""The core alone, on one processor core: how many events a second, and what members and conferences weigh."""

from __future__ import annotations

import gc
import time
import tracemalloc
from itertools import count

from ari_conf.core import events as ev
from ari_conf.core.conference import Conference
from ari_conf.core.directory import Directory
from ari_conf.service import COLLECT
from tests.bench.plays import JOINS, SIZE, TALKING, Mix, Recorder, recorded

MIXES = {"a meeting": TALKING, "joins and leaves alone": JOINS}


def replay(events: list[tuple[int, ev.Event]]) -> float:
    """CPU seconds. The core is asked as `serve` asks it, and nothing else is done."""
    ids = count(1)
    directory = Directory(lambda: f"00000000-0000-4000-8000-{next(ids):012x}")
    gc.collect()
    # As `serve` does.
    gc.freeze()
    found = gc.get_threshold()
    gc.set_threshold(*COLLECT)
    began = time.process_time()
    for now, event in events:
        if type(event) is ev.CallArrived:
            # Its two ids are of the event, and came from the recorder's counter.
            next(ids), next(ids)
        directory.receive(event, now)
        for thing in directory.touched().values():
            if type(thing) is Conference:
                thing.changed()
        directory.deadline  # noqa: B018
    spent = time.process_time() - began
    gc.unfreeze()
    gc.set_threshold(*found)
    assert not directory.calls and not directory.conferences, "the play has not come to its end"
    return spent


def rates(mix: Mix, conferences: int, rounds: int) -> tuple[list[float], int]:
    """Events a second in each round, and how many there were."""
    events = recorded(mix, conferences)
    return [len(events) / replay(events) for _ in range(rounds)], len(events)


def weights(conferences: int = 100) -> tuple[float, float]:
    """Bytes of one more member with his call, and of one more conference without its members."""
    full, lone = _weight(conferences, SIZE), _weight(conferences, 1)
    member = (full - lone) / (conferences * (SIZE - 1))
    return member, lone / conferences - member


def _weight(conferences: int, members: int) -> int:
    recorder = Recorder(TALKING)
    tracemalloc.start()
    try:
        for n in range(conferences):
            for _ in range(members):
                recorder.arrives(str(n))
                recorder.go_on()
        recorder.timeline.clear(), recorder.events.clear(), recorder.conference_of.clear()
        recorder.asterisk.channels.clear(), recorder.asterisk.bridges.clear(), recorder.asterisk._used.clear()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
