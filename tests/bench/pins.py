"""PINs that are typed fast over a line with jitter: the share that arrives as typed.

python -m tests.bench.pins [PINS] [JITTER_MS]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from pathlib import Path

from ari_conf.local.system import LocalSystem
from demo.phone import Phone
from tests.integration.jitter import Jitter
from tests.integration.stage import ALLOWED, Stage, staged

AT_ONCE = 10
PRESSES = ((40, 40), (60, 40), (60, 60), (80, 40), (100, 40), (100, 60), (160, 60))
"""The ms for which a key is pressed, and the ms of the gap after it."""
LATE_MS = 40.0
"""The delay above which a packet was late because of this machine."""


async def enter(stage: Stage, phone: Phone, n: int, jitter_ms: float) -> tuple[str, str, bool]:
    """Return the typed PIN, the digits that arrived, and True if this machine sent all packets in time."""
    dice = random.Random(n)
    pin = "".join(dice.choice("0123456789") for _ in range(4)) + dice.choice(("", "00", "11", "5555"))
    duration_ms, gap_ms = dice.choice(PRESSES)
    path = f"/entered/{n}"
    stage.document(path, "<Hangup/>")
    await stage.call(phone, f'<GetDigits action="{stage.receiver.url(path)}" timeout="20" digitTimeout="5"/>')
    with Jitter(phone, jitter_ms, seed=n):
        await phone.press(f"{pin}#", gap_ms=gap_ms, duration_ms=duration_ms)
        await phone.wait_until_hung_up(20)
    arrived = [request.params["Digits"] for request in stage.receiver.requests_to(path)]
    return pin, " ".join(arrived), max((by for _, by in phone.late), default=0.0) <= LATE_MS


async def main(pins: int, jitter_ms: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        system = LocalSystem(Path(folder), ALLOWED, ("redis", "asterisk", "worker", "serve"))
        async with system, staged(system) as stage:
            entered: list[tuple[str, str, bool]] = []
            for first in range(0, pins, AT_ONCE):
                async with stage.callers(min(AT_ONCE, pins - first)) as phones:
                    entered += await asyncio.gather(
                        *(enter(stage, phone, first + n, jitter_ms) for n, phone in enumerate(phones))
                    )
    for typed, arrived, in_time in entered:
        if typed != arrived:
            print(f"{typed} arrived as {arrived or 'nothing'}{'' if in_time else ', sent late by this machine'}")
    right = sum(typed == arrived for typed, arrived, _ in entered)
    print(f"{right} of {len(entered)} PINs arrived as they were typed, with up to {jitter_ms:g} ms of jitter")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pins", type=int, nargs="?", default=100, help="number of PINs")
    parser.add_argument("jitter_ms", type=float, nargs="?", default=20.0, help="maximum delay of a packet in ms")
    given = parser.parse_args()
    asyncio.run(main(given.pins, given.jitter_ms))
