"""The server's side of a callback: steps through StepWriter and StateStore, at a steady rate, as in `serve`.

`python -m tests.bench.events URL RATE SECONDS`, a process of its own, with the settings in its environment.
"""

from __future__ import annotations

import argparse
import asyncio
import time

from ari_conf.core.effects import PostCallback
from ari_conf.server.step_writer import StepWriter
from ari_conf.settings import settings
from ari_conf.store import state_store
from ari_conf.store.state_store import StateStore, Step
from tests.bench.receiver import SENT_AT

CONFERENCES = 50
WARM_UP_S = 3
"""Seconds at the start, without times in the callbacks, until all connections exist."""
STATE = b"x" * 3000
"""About the size of the snapshot of a conference of five."""
FILLING = tuple((f"Parameter{n}", f"value{n}") for n in range(25))


async def run(url: str, rate: int, seconds: float) -> None:
    redis = state_store.connect(settings().redis_url.get_secret_value())
    writer = StepWriter(StateStore(redis, "bench"), lambda _: None)
    writing = asyncio.create_task(writer.run())
    began, name = time.monotonic(), SENT_AT.decode().rstrip("=")
    for n in range(int(rate * (WARM_UP_S + seconds))):
        await asyncio.sleep(max(0.0, began + n / rate - time.monotonic()))
        conference, now_ns = f"conference-{n % CONFERENCES}", time.time_ns()
        timed = ((name, str(now_ns)),) if n >= rate * WARM_UP_S else ()
        callback = PostCallback(conference, "MA1", url, "POST", FILLING + timed)
        writer.submit(Step(now_ns // 1_000_000, {f"conference:{conference}": STATE}, [callback]), [])
    await writer.wait_until_drained()
    await asyncio.sleep(1)  # the last callbacks are on their way
    writing.cancel()
    await redis.aclose()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("rate", type=int, help="callbacks per second")
    parser.add_argument("seconds", type=float)
    given = parser.parse_args()
    asyncio.run(run(given.url, given.rate, given.seconds))
