"""The application's side of a callback: steps through Writer, Store and Tokens, at a steady rate, as `serve` does it.

`python -m tests.bench.events URL RATE SECONDS`, a process of its own, with the settings in its environment.
"""

from __future__ import annotations

import asyncio
import sys
import time

from redis import Redis

from ari_conf import store
from ari_conf.core.effects import PostCallback
from ari_conf.settings import settings
from ari_conf.store import Step, Store
from ari_conf.writer import Writer
from tasks.tokens import Tokens
from tests.bench.receiver import SENT_AT

CONFERENCES = 50
WARM_UP_S = 3
"""At first, without the time in them: until all connections are there."""
STATE = b"x" * 3000
"""About what the snapshot of a conference of five weighs."""
FILLING = tuple((f"Parameter{n}", f"value{n}") for n in range(25))


async def run(url: str, rate: int, seconds: float) -> None:
    redis = store.connect(settings().redis_url.get_secret_value())
    tokens = Tokens(Redis.from_url(settings().redis_url.get_secret_value()))
    tokens.start()
    tokens.wake()  # then it knows how a message is made
    writer = Writer(Store(redis, "bench", letter=tokens.letter), lambda _: None, lambda: None)
    writing = asyncio.create_task(writer.run())
    began, name = time.monotonic(), SENT_AT.decode().rstrip("=")
    for n in range(int(rate * (WARM_UP_S + seconds))):
        await asyncio.sleep(max(0.0, began + n / rate - time.monotonic()))
        conference, now_ns = f"conference-{n % CONFERENCES}", time.time_ns()
        timed = ((name, str(now_ns)),) if n >= rate * WARM_UP_S else ()
        callback = PostCallback(conference, "MA1", url, "POST", FILLING + timed)
        writer.put(Step(now_ns // 1_000_000, {f"conference:{conference}": STATE}, [callback]), [])
    await writer.drained()
    await asyncio.sleep(1)  # the last ones are on their way
    writing.cancel()
    tokens.end()
    await redis.aclose()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
