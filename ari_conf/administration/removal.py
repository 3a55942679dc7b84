"""Removal of an account: its beginning, and its steps, which a worker makes.

1. `calls`: from the beginning no new call is accepted, and the account's API and dashboard are closed. The calls are
   hung up, or continue until they end.
2. `callbacks`: the last callbacks are delivered, and the last recordings stored. The account's tokens sign them.
3. `data`, if asked for: everything that is stored of the account is deleted.

Each step can be repeated, by any worker, wherever the previous attempt stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

import structlog
from msgspec import structs
from redis import Redis

from ari_conf.administration import audit, purge, remains
from ari_conf.administration.audit import WORKER, Actor, AuditEntry
from ari_conf.core.commands import ForAccount, HangUpCalls
from ari_conf.errors import AccountConflict, HistoryUnavailable, RecordingFailed
from ari_conf.history.database import HistoryDatabase
from ari_conf.queues import command_queue
from ari_conf.recordings.bucket import Bucket
from ari_conf.settings import Settings
from ari_conf.store import removals
from ari_conf.store.accounts import AccountRecord
from ari_conf.store.live_state import LiveCount
from ari_conf.store.removals import Calls, Phase, Remains, Removal

log = structlog.get_logger()

CALLS_AT_ONCE = 50
"""Calls that one command hangs up: the owner has calls of other accounts to handle, too."""
CACHE_MS = 6_000
"""Milliseconds for which a server may still accept a call: it reads an account from Redis every 5 s."""
POLL_MS, KEPT_POLL_MS = 500, 5_000
"""Minimum and maximum milliseconds until the next look: each one scans all keys for the Asterisks."""
MAX_DRAIN_MS = 600_000
"""Milliseconds for which a purge waits for the last callbacks; then they are deleted as well."""
RUN_S = 5.0
"""Seconds after which an attempt ends, so that the removals of other accounts get the thread too."""


@dataclass(frozen=True, slots=True)
class Step:
    """Result of one attempt."""

    phase: Phase
    delay_ms: int = 0
    """Milliseconds until the next attempt."""
    error: str = ""


def begin(redis: Redis, actor: Actor, settings: Settings, auth_id: str, calls: Calls | None, purge: bool) -> Removal:
    """Begin to remove an account, or to purge one that was removed; return the removal with what is left.

    `calls` is required if the account has live calls. Repeated while the removal is in progress, it may ask for more:
    to end calls that were to be kept, or to purge. Raises AccountError."""
    left, _ = remains.count(redis, auth_id, lost_ms(settings))
    entries = list[AuditEntry]()

    def make(record: AccountRecord | None, before: Removal | None) -> Removal:
        removal = _new(auth_id, record, before, calls, purge, left, _now_ms(redis))
        chosen = {"calls": removal.calls, "purge": str(removal.purge).lower(), "left": left.described()}
        entries.append(audit.entry(redis, actor, "removal begun", auth_id, chosen))
        return removal

    removal = removals.begin(redis, auth_id, make, lambda pipe: audit.add(pipe, entries[-1]))
    audit.write_log(entries[-1])
    return removal


def _new(
    auth_id: str,
    record: AccountRecord | None,
    before: Removal | None,
    calls: Calls | None,
    purge: bool,
    left: Remains,
    now_ms: int,
) -> Removal:
    if before is not None and before.phase == "removed" and not purge:
        raise AccountConflict(
            f"account {auth_id} was removed already; what is left of it: {left.described() or 'nothing'}. "
            "`--purge`, or purge=true in the API, deletes that"
        )
    if calls is None and before is None and left.is_live:
        raise AccountConflict(
            f"account {auth_id} has live calls ({left.calls}) in {left.conferences} conferences: choose whether they "
            "are hung up (`--hang-up`, or calls=end in the API) or continue until they end (`--keep-calls`, calls=keep)"
        )
    chosen: Calls = calls or (before.calls if before is not None else "end")
    if before is not None:
        phase: Phase = "data" if before.phase == "data" else "calls"
        changed = structs.replace(before, calls=chosen, purge=before.purge or purge, phase=phase, phase_ms=now_ms)
        return structs.replace(changed, total=left if before.phase == "removed" else before.total, left=left, error="")
    kept = None if record is None else structs.replace(record, removed=True)
    return Removal(
        auth_id=auth_id,
        record=kept,
        calls=chosen,
        purge=purge,
        began_ms=now_ms,
        phase_ms=now_ms,
        total=left,
        left=left,
    )


def advance(redis: Redis, settings: Settings, auth_id: str, may_continue: Callable[[], bool]) -> int | None:
    """Make one attempt at a removal. Return the milliseconds until the next one; None if the removal is done.

    `may_continue` returns False if the worker must stop. Raises RedisError."""
    removal = removals.get(redis, auth_id)
    if removal is None or removal.phase == "removed":
        return None
    until = time.monotonic() + RUN_S
    attempt = _Attempt(redis, settings, removal, lambda: may_continue() and time.monotonic() < until)
    try:
        step = attempt.make()
    except (RecordingFailed, HistoryUnavailable) as failure:
        log.warning("account purge attempt failed", auth_id=auth_id, reason=str(failure))
        step = Step(removal.phase, KEPT_POLL_MS, str(failure))
    left = attempt.left()
    if step.phase == "removed":
        _finish(redis, removal, left)
        return None
    removals.change(redis, auth_id, lambda now: _moved(now, removal, step, left, _now_ms(redis)), None)
    return step.delay_ms


def _moved(now: Removal, seen: Removal, step: Step, left: Remains, now_ms: int) -> Removal:
    """Return the removal after a step. If it was changed in the meantime, the phase stays, and is begun again."""
    is_changed = (now.phase_ms, now.calls, now.purge) != (seen.phase_ms, seen.calls, seen.purge)
    if is_changed or step.phase == now.phase:
        return structs.replace(now, left=left, error=step.error)
    # Nothing is signed once data is being deleted.
    record = now.record if step.phase in ("calls", "callbacks") else None
    return structs.replace(now, record=record, phase=step.phase, phase_ms=now_ms, left=left, error=step.error)


def _finish(redis: Redis, removal: Removal, left: Remains) -> None:
    entry = audit.entry(redis, WORKER, "removed", removal.auth_id, {"left": left.described() or "nothing"})
    is_changed = False

    def removed(now: Removal) -> Removal | None:
        nonlocal is_changed
        is_changed = now.phase_ms != removal.phase_ms
        if is_changed:
            return now
        return structs.replace(now, record=None, phase="removed", left=left, error="") if left.counted() else None

    removals.change(redis, removal.auth_id, removed, lambda pipe: None if is_changed else audit.add(pipe, entry))
    if not is_changed:
        audit.write_log(entry)


class _Attempt:
    def __init__(self, redis: Redis, settings: Settings, removal: Removal, may_continue: Callable[[], bool]) -> None:
        self._redis, self._settings, self._removal = redis, settings, removal
        self._auth_id = removal.auth_id
        self._may_continue = may_continue
        self._live: list[LiveCount] = []

    def left(self) -> Remains:
        """Return what is left now; of live calls, what was left at the beginning of the attempt."""
        calls, conferences = sum(one.calls for one in self._live), sum(one.conferences for one in self._live)
        return structs.replace(remains.stored(self._redis, self._auth_id), calls=calls, conferences=conferences)

    def make(self) -> Step:
        left, self._live = remains.count(self._redis, self._auth_id, lost_ms(self._settings))
        if left.is_live:
            # Also if a call has arrived after the others had ended.
            return self._end_calls() if self._removal.calls == "end" else Step("calls", KEPT_POLL_MS)
        waited_ms = _now_ms(self._redis) - self._removal.phase_ms
        if self._removal.phase == "calls":
            return Step("calls", CACHE_MS - waited_ms) if waited_ms < CACHE_MS else Step("callbacks")
        if self._removal.phase == "callbacks":
            may_wait = not self._removal.purge or waited_ms < MAX_DRAIN_MS
            if may_wait and any(remains.queued(self._redis, self._auth_id).values()):
                return Step("callbacks", max(POLL_MS, min(KEPT_POLL_MS, waited_ms // 10)))
            return Step("data" if self._removal.purge else "removed")
        return self._delete_data(left)

    def _end_calls(self) -> Step:
        deadline_s, error = self._settings.command_deadline, ""
        for asterisk in [one.asterisk for one in self._live if one.calls]:
            hang_up = ForAccount(self._auth_id, HangUpCalls(CALLS_AT_ONCE))
            while self._may_continue():
                reply = command_queue.send_and_wait(self._redis, asterisk, hang_up, str(uuid4()), deadline_s)
                if reply is None or reply.status >= 400:
                    reason = "did not answer" if reply is None else dict(reply.body)["error"]
                    error = f"calls on Asterisk {asterisk} could not be hung up: {reason}"
                    break
                if not int(str(dict(reply.body)["left"])):
                    break
        return Step("calls", KEPT_POLL_MS if error else POLL_MS, error)

    def _delete_data(self, left: Remains) -> Step:
        redis, auth_id, again = self._redis, self._auth_id, Step("data")
        if left.recordings or self._removal.total.recordings or self._removal.total.recording_jobs:
            bucket = Bucket(self._settings)
            while purge.delete_recordings(redis, bucket, auth_id) or purge.delete_files(bucket, auth_id):
                removals.change(redis, auth_id, lambda now: structs.replace(now, left=self.left()), None)
                if not self._may_continue():
                    return again
        if (left.history_entries or self._removal.total.history_entries) and not self._delete_history():
            return Step("data", POLL_MS)
        if purge.discard_queued(redis, auth_id):
            return Step("data", POLL_MS)
        if not self._may_continue() or purge.delete_keys(redis, auth_id, self._may_continue):
            return again
        return again if remains.stored(redis, auth_id).counted() else Step("removed")

    def _delete_history(self) -> bool:
        database = HistoryDatabase(self._settings)
        try:
            return purge.delete_history(self._redis, database, self._auth_id, self._may_continue)
        finally:
            database.close()


def lost_ms(settings: Settings) -> int:
    """Return the milliseconds without a renewed lease after which the calls of an Asterisk no longer count."""
    return int(settings.names_kept_minutes * 60_000)


def _now_ms(redis: Redis) -> int:
    seconds, micros = redis.time()
    return seconds * 1000 + micros // 1000
