"""The number of members held without loss: listening phones sit among SIPp's callers, whose number increases."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from demo import audio_analysis
from demo.phone import Phone, Switchboard, now_ms
from tests.bench import sip_load
from tests.bench.sip_cpu import Used, machine_s
from tests.bench.sip_parts import PAIR_HZ, RATE, SETTLE_S, Found, Size
from tests.bench.sip_variants import Stand

LISTENERS = 6
"""Two phones in each of three conferences; each hears the other's tone."""
LOST = 0.01
"""The share of the tone that may be missing: less is unnoticeable (ITU-T G.113, appendix I)."""
ON_ITS_WAY_MS = 200
"""The ms from sending audio until it has been heard."""


async def held(stand: Stand, size: Size) -> Found:
    """Add callers until a tone has gaps twice; the number before that is the result."""
    steps: list[Found] = []
    redis_bytes = stand.redis_bytes()
    sippers: list[sip_load.Callers] = []
    async with Switchboard(LISTENERS) as phones:
        listeners = list(phones)
        try:
            await _sit_down(stand, listeners)
            members = LISTENERS
            while members < size.most:
                callers = _batch(stand, size.batch, len(sippers))
                sippers.append(sip_load.Callers(stand.asterisk, callers, RATE, 3600.0))
                await sippers[-1].start()
                answered = await sippers[-1].answered()
                members += len(callers)
                steps.append({"members": members, "answered": answered, **await _listen(stand, listeners, size)})
                if not answered or steps[-1]["lost"] > LOST:
                    break
        finally:
            # These first: the phones' BYEs would be lost among the other packets.
            for sipp in sippers:
                await sipp.stop()
    good = [step["members"] for step in steps if step["answered"] and step["lost"] <= LOST]
    held = max(good, default=0)
    return {"held": held, "at_the_limit": len(good) < len(steps), "steps": steps, "redis_bytes_before": redis_bytes}


async def _sit_down(stand: Stand, listeners: Sequence[Phone]) -> None:
    for number, phone in enumerate(listeners):
        phone.tone(PAIR_HZ[number % 2])
        dialled = f"{stand.prefix}{number // 2:04}"
        await phone.call(f"sip:{dialled}@{stand.asterisk.host}:{stand.asterisk.sip_port}", from_user=f"1555000{number}")


def _batch(stand: Stand, count: int, batch: int) -> list[sip_load.Line]:
    """Return callers: the first batch fills the listeners' conferences up to 20, the others have their own."""
    seats = [f"{stand.prefix}{number // 18:04}" for number in range(LISTENERS // 2 * 18)] if batch == 0 else []
    seats += [dialled for _, dialled in sip_load.lines(stand.prefix, count, first=100 + batch * 50)]
    return [(f"1{batch:04}{number:06}", dialled) for number, dialled in enumerate(seats[:count])]


async def _listen(stand: Stand, listeners: Sequence[Phone], size: Size) -> Found:
    """Listen, twice if the first time had gaps: other programs may use the machine too."""
    for _ in range(2):
        await asyncio.sleep(SETTLE_S)
        used, machine, began = Used(stand.pids), machine_s(), time.monotonic()
        start = now_ms()
        await asyncio.sleep(size.listen_s + ON_ITS_WAY_MS / 1000)
        seconds, cpu, now = time.monotonic() - began, used.so_far(), machine_s()
        lost = [_lost(phone, PAIR_HZ[1 - n % 2], start, size.listen_s * 1000) for n, phone in enumerate(listeners)]
        found = {
            "lost": max(lost),
            "cores": {name: s / seconds for name, s in cpu.items()},
            "machine_busy": (now[0] - machine[0]) / (now[1] - machine[1]),
            "redis_bytes": stand.redis_bytes(),
        }
        if max(lost) <= LOST:
            break
    return found


def _lost(phone: Phone, hz: int, start: float, length_ms: float) -> float:
    """Return the share of the time in which the phone did not hear the other's tone."""
    heard = audio_analysis.intervals_of(phone.heard.between(start, start + length_ms), hz)
    return max(0.0, 1 - sum(to - since for since, to in heard) / length_ms)
