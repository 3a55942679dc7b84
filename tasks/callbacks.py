"""Delivers callbacks: a task takes lanes, one entry at a time, until there is nothing to take."""

from __future__ import annotations

import random
import time
from functools import lru_cache

import structlog
from msgspec import MsgspecError, structs

from ari_conf import callback_history, lanes, outbox
from ari_conf.http.deliver import attempt
from ari_conf.http.hop import without_query
from ari_conf.http.retry import Outcome, next_try, parse
from ari_conf.lanes import Taken, Verdict
from ari_conf.problems import Problem, encoded, problems_key
from ari_conf.settings import settings
from tasks.app import app
from tasks.worker import Worker, come, letters_kept_ms, serves, unreadable

log = structlog.get_logger()
parsed = lru_cache(maxsize=1024)(parse)


@app.task(name="tasks.callbacks.deliver")  # type: ignore[untyped-decorator]
def deliver(token: str) -> None:
    come(outbox.QUEUE, token)


def serve(worker: Worker, taken: Taken) -> Verdict:
    """Makes one try."""
    try:
        entry = outbox.decode(taken.entry)
    except MsgspecError as error:
        return unreadable(worker, taken, error)
    record = worker.account(entry.auth_id)
    if record is None:
        reason = "its account was removed: nothing can sign it"
        return _dead(taken, structs.replace(entry, reason=reason), reason, tell=False)
    if not worker.leased:
        return lanes.back(taken)  # we were stopped for long: another worker may be at it
    bare, policy, warnings = parsed(entry.url)
    if not entry.tries:
        for warning in warnings:
            log.warning("url fragment", auth_id=entry.auth_id, url=without_query(bare), warning=warning)
    outcome = attempt(
        entry.method,
        bare,
        entry.params,
        tokens=record.tokens(),
        policy=policy,
        allowed_networks=settings().allowed_networks,
        remaining_ms=max(1, policy.total_ms - entry.elapsed_ms),
    )
    tried = outbox.Try(outcome.at_ms, outcome.ms, outcome.status, "" if outcome.ok else outcome.reason)
    if outcome.ok:
        whole = outbox.encode(structs.replace(entry, tries=(*entry.tries, tried)))
        return lanes.done(taken, whole, settings().callbacks_kept, callback_history.KEPT_MS)
    tries = [*(Outcome(t.at_ms, t.ms, t.status) for t in entry.tries), outcome]
    delay_ms = next_try(policy, tries, entry.elapsed_ms + outcome.ms, random.random())
    if delay_ms is None:
        return _dead(taken, structs.replace(entry, tries=(*entry.tries, tried)), outcome.told, tell=True)
    tried = structs.replace(tried, delay_ms=delay_ms)
    return lanes.retry(taken, outbox.encode(structs.replace(entry, tries=(*entry.tries, tried))), delay_ms)


def _dead(taken: Taken, entry: outbox.Entry, why: str, *, tell: bool) -> Verdict:
    """`tell`: the account's problem list as well, since a user looks there."""
    count, url = len(entry.tries), without_query(entry.url)
    log.warning("callback not delivered", auth_id=entry.auth_id, url=url, tries=count, reason=why)
    told = None
    if tell:
        tries = f"{count} tries" if count > 1 else "1 try"
        text = f"a callback to {url} is a dead letter after {tries}: {why}"
        problem = Problem(time.time_ns() // 1_000_000, dict(entry.params).get("CallUUID", ""), text)
        told = (problems_key(entry.auth_id), encoded(problem), settings().problems_kept)
    return lanes.dead(taken, outbox.encode(entry), settings().dead_letters_kept, letters_kept_ms(), told)


serves(outbox.QUEUE, lambda: settings().callback_threads, serve)
