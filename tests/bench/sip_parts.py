"""Measurements of a running variant: each function is one part, and returns plain figures."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from statistics import quantiles
from typing import Any

from demo import audio_analysis
from demo.phone import Phone, Switchboard
from tests.bench import sip_load
from tests.bench.sip_cpu import Used, machine_s, memory_kb
from tests.bench.sip_variants import CALLBACKS_A_CALL, Stand

Found = dict[str, Any]

WARM_UP = 40
RATE = 60
GENTLE_RATE = 25
"""The rate for parts in which it does not matter."""
SETTLE_S = 1.0
REPORTED_S = 10.0
"""Maximum wait for the reports of the last calls: log lines, or callbacks of a busy worker."""
JOINED_WITHIN_MS = 250.0
PAIR_HZ = (2575, 2875)


@dataclass(frozen=True)
class Size:
    """The amount of work in each part."""

    calls: int = 300
    hold_s: float = 20.0
    pairs: int = 10
    rate_s: float = 4.0
    """Seconds for each tried rate."""
    highest_rate: float = 400.0
    batch: int = 100
    """The number of callers by which the held members increase."""
    most: int = 3000
    listen_s: float = 8.0
    members: int = 300
    """The number of members for the memory measurement; in the end twice as many exist."""


TINY = Size(calls=10, hold_s=1.0, pairs=1, rate_s=0.3, highest_rate=30.0, batch=10, most=10, listen_s=1.0, members=20)
QUICK = Size(calls=200, hold_s=4.0, pairs=5, rate_s=3.0, listen_s=4.0, members=200)


async def calls(stand: Stand, size: Size) -> Found:
    """Measure calls that arrive at a steady rate, stay for a while with audio in both directions, and end."""
    await _warm_up(stand)
    used, machine, began = Used(stand.pids), machine_s(), time.monotonic()
    made = await sip_load.run(stand.asterisk, sip_load.lines(stand.prefix, size.calls), RATE, size.hold_s)
    await _callbacks_delivered(stand, size.calls + WARM_UP)
    seconds, cpu, now = time.monotonic() - began, used.so_far(), machine_s()
    took = sorted(call.took_ms for call in made)
    return {
        "calls": len(made),
        "failed": sum(call.answered_ms is None for call in made),
        "answered_ms": [round(ms, 3) for ms in took],
        "median_ms": took[len(took) // 2],
        "p95_ms": quantiles(took, n=20)[-1],
        "cpu_ms_per_call": {name: s * 1000 / size.calls for name, s in cpu.items()},
        "seconds": seconds,
        "machine_busy": (now[0] - machine[0]) / (now[1] - machine[1]),
    }


async def twos(stand: Stand, size: Size) -> Found:
    """Measure Asterisk's CPU for conferences of two while they last."""
    callers = sip_load.Callers(stand.asterisk, sip_load.lines(stand.prefix, size.calls, 2), RATE, 3600.0)
    await callers.start()
    try:
        if not await callers.answered():
            raise RuntimeError(f"{stand.name}: not all of {size.calls} were answered")
        used, began = Used(stand.pids), time.monotonic()
        await asyncio.sleep(size.listen_s)
        cores = used.so_far()["asterisk"] / (time.monotonic() - began)
    finally:
        await callers.stop()
    return {"cores_per_100": cores * 100 / size.calls}


async def pairs(stand: Stand, size: Size) -> Found:
    """Measure the time from the second INVITE until each hears the other, by the kernel's arrival times."""
    took, late = [], 0.0
    async with Switchboard(2) as (ann, bob):
        for number in range(size.pairs):
            ann.tone(PAIR_HZ[0])
            bob.tone(PAIR_HZ[1])
            took.append(await _pair(stand, ann, bob, f"{stand.prefix}{5000 + number}"))
            late = max(late, ann.latest_ms, bob.latest_ms)
    return {"heard_ms": took, "phones_latest_ms": late}


async def _pair(stand: Stand, ann: Phone, bob: Phone, number: str) -> float:
    target = f"sip:{number}@{stand.asterisk.host}:{stand.asterisk.sip_port}"
    await ann.call(target, from_user="15550001")
    await asyncio.sleep(SETTLE_S)
    await bob.call(target, from_user="15550002")
    assert bob.called_at is not None
    end, since = time.monotonic() + 5, []
    while len(since) < 2:
        # The analysis costs CPU time that the measured processes need, so it runs seldom.
        await asyncio.sleep(0.5)
        heard = ((ann, PAIR_HZ[1]), (bob, PAIR_HZ[0]))
        spans = [audio_analysis.intervals_of(phone.heard.since(bob.called_at), hz) for phone, hz in heard]
        since = [found[0][0] for found in spans if found]
        if time.monotonic() > end:
            raise RuntimeError(f"{stand.name}: two callers did not hear each other within 5 s")
    await bob.hang_up()
    await ann.hang_up()
    await asyncio.sleep(0.2)
    return max(since)


async def rate(stand: Stand, size: Size) -> Found:
    """Find the highest rate at which all are in the bridge within 250 ms of their INVITE: by steps of a half, then by
    bisection."""
    await _warm_up(stand)
    tried: dict[float, float] = {}
    first = 100

    async def holds(at: float) -> bool:
        nonlocal first
        # A rate fails only after two attempts: other programs may use the machine too.
        for _ in range(2):
            tried[at] = await _longest_join(stand, at, max(5, round(at * size.rate_s)), first)
            first += 500
            await asyncio.sleep(SETTLE_S)
            if tried[at] <= JOINED_WITHIN_MS:
                return True
        return False

    good, at = 0.0, min(40.0, size.highest_rate)
    while await holds(at):
        good = at
        if at >= size.highest_rate:
            break
        at = min(at * 1.5, size.highest_rate)
    bad = at
    while good < bad and good and bad / good > 1.06:
        at = (good + bad) / 2
        good, bad = (at, bad) if await holds(at) else (good, at)
    return {"highest": good, "longest_join_ms": {f"{at:g}": ms for at, ms in sorted(tried.items())}}


async def _longest_join(stand: Stand, at: float, count: int, first: int) -> float:
    made = await sip_load.run(stand.asterisk, sip_load.lines(stand.prefix, count, first=first % 9000), at, 2.0)
    entries = stand.entries()
    reported_by = time.monotonic() + REPORTED_S
    while not all(call.caller in entries for call in made) and time.monotonic() < reported_by:
        await asyncio.sleep(0.1)
        entries = stand.entries()
    took = (entries[call.caller] - call.invited_ms if call.caller in entries else sip_load.NEVER_MS for call in made)
    return max(took, default=sip_load.NEVER_MS)


async def memory(stand: Stand, size: Size) -> Found:
    """Measure the server's memory with as many members twice, in large conferences and in small ones: two equations."""
    await _warm_up(stand)
    # Conferences of 20, then of 2: the second run has ten times as many conferences for the same number of members.
    seen = [memory_kb(stand.pids["application"])]
    sippers = []
    counts = []
    try:
        for per_conference, first in ((20, 100), (2, 1000)):
            callers = sip_load.lines(stand.prefix, size.members, per_conference, first)
            sippers.append(sip_load.Callers(stand.asterisk, callers, GENTLE_RATE, 600.0, sound=False))
            await sippers[-1].start()
            if not await sippers[-1].answered():
                raise RuntimeError(f"{stand.name}: not all of {size.members} were answered")
            await asyncio.sleep(3 * SETTLE_S)
            seen.append(memory_kb(stand.pids["application"]))
            counts.append(len({dialled for _, dialled in callers}))
    finally:
        for sipp in sippers:
            await sipp.stop()
    result: Found = {"members": size.members, "conferences": counts}
    for kind, place in (("rss", 0), ("pss", 1)):
        first_kb, second_kb = (seen[n + 1][place] - seen[n][place] for n in (0, 1))
        per_conference = (second_kb - first_kb) / (counts[1] - counts[0])
        member_kb = (first_kb - per_conference * counts[0]) / size.members
        result[kind] = {
            "before_kb": seen[0][place],
            "grown_kb": [first_kb, second_kb],
            "member_kb": member_kb,
            "conference_kb": per_conference,
        }
    return result


async def _warm_up(stand: Stand) -> None:
    """Make calls so that connections exist, and everything loaded on the first call is loaded."""
    await sip_load.run(stand.asterisk, sip_load.lines(stand.prefix, WARM_UP, first=9900), RATE, 1.0)
    await asyncio.sleep(SETTLE_S)


async def _callbacks_delivered(stand: Stand, calls_made: int) -> None:
    """Wait until the callbacks and document requests have arrived. Floor events count too, in addition."""
    if stand.outside is None:
        return
    awaited, end = calls_made * (CALLBACKS_A_CALL + 1), time.monotonic() + 30
    while stand.outside.count < awaited:
        if time.monotonic() > end:
            raise RuntimeError(f"{stand.name}: {stand.outside.count} of {awaited} requests arrived")
        await asyncio.sleep(0.05)
