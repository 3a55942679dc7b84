"""Who works off what waits in Redis."""

from __future__ import annotations

from typing import Any

import msgspec
import redis

from ari_conf import outbox
from ari_conf.doctor.found import DEADLINE, Doubtful, Wrong
from ari_conf.redis_client import connect_in_threads
from ari_conf.settings import Settings

LONG_MS = 60_000
"""What could be tried now, and was not for so long, waits for a worker."""


class _Made(msgspec.Struct):
    at_ms: int


def callback_workers(settings: Settings) -> str:
    totals, oldest_ms = _asked(settings, outbox.QUEUE)
    if not totals.workers:
        raise nobody(settings, outbox.QUEUE, "delivers callbacks")
    told = f"{totals.workers} with {totals.threads} threads; {totals.waiting} callbacks wait"
    if oldest_ms > LONG_MS:
        raise Doubtful(
            f"{told}, one that could be sent now for {oldest_ms / 1000:.0f} s: start more workers, and see "
            "`ari-conf lanes`"
        )
    return told


def nobody(settings: Settings, queue: str, does: str) -> Wrong | Doubtful:
    """To be raised where no worker is there: wrong if something waits."""
    totals, _ = _asked(settings, queue)
    todo = f"start `ari-conf worker`, or for this alone `ari-conf worker -Q {queue}`, on any machine"
    if totals.waiting:
        return Wrong(f"nobody {does} now, and {totals.waiting} wait: {todo}")
    return Doubtful(f"nobody {does} now; nothing waits yet: {todo}")


def _asked(settings: Settings, queue: str) -> tuple[outbox.Totals, int]:
    """Numbers, and for how long the oldest that could be tried now has been waiting."""
    client: Any = connect_in_threads(settings.redis_url.get_secret_value(), socket_timeout=DEADLINE)
    try:
        totals = outbox.counted(client, queue)
        seconds, micros = client.time()
        now_ms = seconds * 1000 + micros // 1000
        made = [_made(head, now_ms) for _, (state, _due), _, head in outbox.heads(client, queue) if state == "ready"]
    except (redis.RedisError, OSError) as error:
        raise Wrong(f"not known, since Redis does not answer ({error})") from None
    finally:
        client.close()
    return totals, max(0, now_ms - min(made, default=now_ms))


def _made(head: bytes, now_ms: int) -> int:
    try:
        return msgspec.json.decode(head, type=_Made).at_ms
    except msgspec.MsgspecError:
        return now_ms  # of another version
