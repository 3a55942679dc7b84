"""Doctor: checks each component that the system needs, and says in one sentence how to fix each that fails."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ari_conf.doctor import accounts, asterisk, backends, backlogs, history, host, setting_names, workers
from ari_conf.doctor.check import CheckFailed, Doubtful
from ari_conf.settings import Settings

State = Literal["ok", "warning", "failure"]

CHECK_TIMEOUT_S = 30.0
"""Seconds for each check, including all of its requests. The checks run concurrently."""
EXIT_CODES: dict[State, int] = {"ok": 0, "warning": 3, "failure": 1}
"""Exit codes by the worst state. The code 2 means a wrong command line."""


@dataclass(frozen=True, slots=True)
class Finding:
    part: str
    state: State
    text: str
    """The result; if it is not ok, what is wrong and what to do."""

    @property
    def id(self) -> str:
        """Return the stable ID of the check, for programs."""
        return self.part.lower().replace(" ", "-")

    @property
    def passed(self) -> bool:
        return self.state == "ok"


Check = Callable[[Settings], str]
"""A function that returns its result as a sentence, and raises CheckFailed or Doubtful."""


CHECKS: dict[str, Check] = {
    "Asterisk": asterisk.version,
    "its WebSocket": asterisk.websocket,
    "its limits": asterisk.limits,
    "its modules": asterisk.modules,
    "application": asterisk.application,
    "recording folder": asterisk.recording_folder,
    "sounds folder": host.sounds_folder,
    "documents folder": host.documents_folder,
    "Redis": backends.redis_server,
    "stored state": backends.stored_state,
    "owner": backends.owner,
    "accounts": accounts.accounts_exist,
    "dialplan": accounts.in_dialplan,
    "callback workers": backlogs.callback_workers,
    "removal workers": backlogs.removal_workers,
    "history database": history.database,
    "history workers": history.workers,
    "broker": backends.broker,
    "bucket": backends.bucket,
    "RecordUrl": backends.delivery,
    "storing workers": workers.workers,
    "transcription": workers.transcription,
    "ffmpeg": host.ffmpeg,
    "speech": host.speech,
    "clock": host.clock,
    "settings": setting_names.settings_known,
}


async def run_checks(settings: Settings) -> list[Finding]:
    return await asyncio.gather(*(_run_in_time(part, settings) for part in CHECKS))


def worst(findings: list[Finding]) -> State:
    states = {finding.state for finding in findings}
    return "failure" if "failure" in states else "warning" if "warning" in states else "ok"


def run_check(part: str, settings: Settings) -> Finding:
    try:
        return Finding(part, "ok", CHECKS[part](settings))
    except CheckFailed as wrong:
        return Finding(part, "failure", str(wrong))
    except Doubtful as doubtful:
        return Finding(part, "warning", str(doubtful))
    except Exception as error:  # a broken component may respond with anything; the other checks must still run
        return Finding(part, "failure", f"could not be checked: {type(error).__name__}: {error}")


async def _run_in_time(part: str, settings: Settings) -> Finding:
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    findings: list[Finding] = []

    def run() -> None:
        findings.append(run_check(part, settings))
        with contextlib.suppress(RuntimeError):  # the check was too late: the loop is closed
            loop.call_soon_threadsafe(done.set)

    # Not in the loop's pool: the process would wait for the pool's threads on exit, and this thread may never end.
    threading.Thread(target=run, name=f"doctor: {part}", daemon=True).start()
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await done.wait()
    except TimeoutError:
        text = f"could not be checked within {CHECK_TIMEOUT_S:g} s: the component that it asks does not respond"
        return Finding(part, "failure", text)
    return findings[0]
