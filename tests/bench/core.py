"""The core alone, on one processor core: events per second, and the memory of members and conferences."""

from __future__ import annotations

import gc
import time
import tracemalloc
from itertools import count

from ari_conf.core import events as ev
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.engine import Engine
from ari_conf.server.composition import GC_THRESHOLDS
from tests.bench.plays import JOINS, SIZE, TALKING, Mix, Recorder, recorded

MIXES = {"a meeting": TALKING, "joins and leaves alone": JOINS}


def replay(events: list[tuple[int, ev.Event]]) -> float:
    """Replay the events and return the CPU seconds. The core is called as `serve` calls it, and nothing else runs."""
    ids = count(1)
    engine = Engine(lambda: f"00000000-0000-4000-8000-{next(ids):012x}")
    gc.collect()
    # The garbage collector is set as in `serve`.
    gc.freeze()
    found = gc.get_threshold()
    gc.set_threshold(*GC_THRESHOLDS)
    began = time.process_time()
    for now, event in events:
        if type(event) is ev.CallArrived:
            # The event's two ids came from the recorder's counter.
            next(ids), next(ids)
        engine.handle_event(event, now)
        for thing in engine.take_changes().values():
            if type(thing) is Conference:
                thing.take_changed_members()
        engine.deadline  # noqa: B018
    spent = time.process_time() - began
    gc.unfreeze()
    gc.set_threshold(*found)
    assert not engine.calls and not engine.conferences, "the play has not come to its end"
    return spent


def rates(mix: Mix, conferences: int, rounds: int) -> tuple[list[float], int]:
    """Return the events per second of each round, and the number of events."""
    events = recorded(mix, conferences)
    return [len(events) / replay(events) for _ in range(rounds)], len(events)


def weights(conferences: int = 100) -> tuple[float, float]:
    """Return the bytes of one more member with their call, and of one more conference without its members."""
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
