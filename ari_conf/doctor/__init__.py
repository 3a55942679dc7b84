"""Looks at each part that the system needs, and says in a sentence what to do for each that fails."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ari_conf.doctor import accounts, asterisk, machine, names, stores, storing, waiting
from ari_conf.doctor.found import Doubtful, Wrong
from ari_conf.settings import Settings

State = Literal["ok", "warning", "failure"]

PATIENCE_S = 30.0
"""For each check, all of its questions together. They are asked side by side."""
EXIT_CODES: dict[State, int] = {"ok": 0, "warning": 3, "failure": 1}
"""Of the worst that was found. 2 is that of a wrong command line."""


@dataclass(frozen=True, slots=True)
class Finding:
    part: str
    state: State
    text: str
    """What was found; if it is not ok: what is wrong, and what to do."""

    @property
    def id(self) -> str:
        """For programs: it stays as it is."""
        return self.part.lower().replace(" ", "-")

    @property
    def good(self) -> bool:
        return self.state == "ok"


Check = Callable[[Settings], str]
"""What was found; raises Wrong, or Doubtful."""


CHECKS: dict[str, Check] = {
    "Asterisk": asterisk.version,
    "its WebSocket": asterisk.websocket,
    "its limits": asterisk.limits,
    "its modules": asterisk.modules,
    "application": asterisk.application,
    "recording folder": asterisk.recording_folder,
    "sounds folder": machine.sounds_folder,
    "documents folder": machine.documents_folder,
    "Redis": stores.redis_server,
    "owner": stores.owner,
    "accounts": accounts.there,
    "dialplan": accounts.in_dialplan,
    "callback workers": waiting.callback_workers,
    "broker": stores.broker,
    "bucket": stores.bucket,
    "RecordUrl": stores.delivery,
    "storing workers": storing.workers,
    "transcription": storing.transcription,
    "ffmpeg": machine.ffmpeg,
    "speech": machine.speech,
    "clock": machine.clock,
    "settings": names.settings_known,
}


async def examine(settings: Settings) -> list[Finding]:
    return await asyncio.gather(*(_in_time(part, settings) for part in CHECKS))


def worst(findings: list[Finding]) -> State:
    states = {finding.state for finding in findings}
    return "failure" if "failure" in states else "warning" if "warning" in states else "ok"


def examined(part: str, settings: Settings) -> Finding:
    try:
        return Finding(part, "ok", CHECKS[part](settings))
    except Wrong as wrong:
        return Finding(part, "failure", str(wrong))
    except Doubtful as doubtful:
        return Finding(part, "warning", str(doubtful))
    except Exception as error:  # a part that is ill can answer anything; the others are still of interest
        return Finding(part, "failure", f"could not be examined: {type(error).__name__}: {error}")


async def _in_time(part: str, settings: Settings) -> Finding:
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    found: list[Finding] = []

    def look() -> None:
        found.append(examined(part, settings))
        with contextlib.suppress(RuntimeError):  # the loop is over: it came too late
            loop.call_soon_threadsafe(done.set)

    # Not in the loop's pool: who leaves waits for its threads, and this one may never end.
    threading.Thread(target=look, name=f"doctor: {part}", daemon=True).start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            await done.wait()
    except TimeoutError:
        return Finding(part, "failure", f"could not be examined within {PATIENCE_S:g} s: what it asks does not answer")
    return found[0]
