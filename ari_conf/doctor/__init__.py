"""Looks at each part that the system needs, and says in a sentence what to do for each that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from ari_conf.doctor import asterisk, machine, stores, storing
from ari_conf.doctor.found import Wrong
from ari_conf.settings import Settings


@dataclass(frozen=True, slots=True)
class Finding:
    part: str
    good: bool
    text: str
    """What was found; if it is not good: what is wrong, and what to do."""


Check = Callable[[Settings], str]
"""What was found; raises Wrong."""


CHECKS: dict[str, Check] = {
    "Asterisk": asterisk.version,
    "its WebSocket": asterisk.websocket,
    "its limits": asterisk.limits,
    "its modules": asterisk.modules,
    "application": asterisk.application,
    "recording folder": asterisk.recording_folder,
    "Redis": stores.redis_server,
    "owner": stores.owner,
    "broker": stores.broker,
    "bucket": stores.bucket,
    "storing workers": storing.workers,
    "transcription": storing.transcription,
    "ffmpeg": machine.ffmpeg,
    "speech": machine.speech,
    "clock": machine.clock,
}


async def examine(settings: Settings) -> list[Finding]:
    return await asyncio.gather(*(asyncio.to_thread(examined, part, settings) for part in CHECKS))


def examined(part: str, settings: Settings) -> Finding:
    try:
        return Finding(part, True, CHECKS[part](settings))
    except Wrong as wrong:
        return Finding(part, False, str(wrong))
    except Exception as error:  # a part that is ill can answer anything; the others are still of interest
        return Finding(part, False, f"could not be examined: {type(error).__name__}: {error}")
