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
USUAL_REDIRECTS = 2
GIVEN_UP = "its receiver has failed for more than a minute, and is asked only now and then until it answers"


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
    if taken.given_up:
        return _dead(taken, structs.replace(entry, reason=GIVEN_UP), GIVEN_UP, tell=True)
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
        account=entry.auth_id,
    )
    tried = outbox.Try(outcome.at_ms, outcome.ms, outcome.status, "" if outcome.ok else outcome.reason)
    if outcome.ok:
        whole = outbox.encode(structs.replace(entry, tries=(*entry.tries, tried)))
        return lanes.done(taken, whole, settings().callbacks_kept, callback_history.KEPT_MS, wasted=_wasted(outcome))
    tries = [*(Outcome(t.at_ms, t.ms, t.status) for t in entry.tries), outcome]
    delay_ms = next_try(policy, tries, entry.elapsed_ms + outcome.ms, random.random())
    if delay_ms is None:
        tried_last = structs.replace(entry, tries=(*entry.tries, tried))
        return _dead(taken, tried_last, outcome.told, tell=True, wasted=_wasted(outcome))
    tried = structs.replace(tried, delay_ms=delay_ms)
    again = outbox.encode(structs.replace(entry, tries=(*entry.tries, tried)))
    return lanes.retry(taken, again, delay_ms, wasted=_wasted(outcome))


def _wasted(outcome: Outcome) -> int:
    """Requests that came to nothing, for which their receiver is left alone for a while if they become many.

    One that is well forgives one that wasn't: who answers is not flooded by answering. Two redirects are usual (to
    https, and to another name); more are requests to somebody who did not want them.
    """
    if outcome.ok:
        return max(0, outcome.redirects - USUAL_REDIRECTS) - 1
    # One that is refused was never sent.
    return outcome.redirects + (outcome.failure != "refused")


def _dead(taken: Taken, entry: outbox.Entry, why: str, *, tell: bool, wasted: int = 0) -> Verdict:
    """`tell`: the account's problem list as well, since a user looks there."""
    count, url = len(entry.tries), without_query(entry.url)
    log.warning("callback not delivered", auth_id=entry.auth_id, url=url, tries=count, reason=why)
    told = None
    if tell:
        tries = "1 try" if count == 1 else f"{count} tries"
        text = f"a callback to {url} is a dead letter after {tries}: {why}"
        problem = Problem(time.time_ns() // 1_000_000, dict(entry.params).get("CallUUID", ""), text)
        told = (problems_key(entry.auth_id), encoded(problem), settings().problems_kept)
    kept = settings().dead_letters_kept, letters_kept_ms()
    return lanes.dead(taken, outbox.encode(entry), *kept, told, wasted=wasted)


serves(outbox.QUEUE, lambda: settings().callback_threads, serve)
