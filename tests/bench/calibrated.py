"""Speed of Python on this machine now, as a reference for the figures of a short run.

It is CPU time, so that a busy machine does not count as slower. The figures are ratios to a loop in the same process,
so that a slower machine does not matter either.
"""

from __future__ import annotations

import gc
import time

TIMES = 100_000


class _Thing:
    __slots__ = ("known", "name", "pair")

    def __init__(self, known: dict[int, int], name: str, pair: tuple[int, int]) -> None:
        self.known, self.name, self.pair = known, name, pair

    def found(self, number: int) -> int:
        return self.known.get(number & 63, 0) + len(self.name)


def step_us() -> float:
    """Return the CPU time in us of one step of a loop with typical Python work: small objects, calls, lookups,
    deallocation."""
    gc.collect()
    known, found = {number: number for number in range(64)}, []
    began = time.process_time()
    for number in range(TIMES):
        thing = _Thing(known, "ab", (number, number + 1))
        found.append(thing.found(number))
        known[number & 63] = thing.pair[0]
        if number & 1023 == 0:
            found.clear()
    return (time.process_time() - began) / TIMES * 1e6
