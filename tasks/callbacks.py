"""Callback delivery: each task claims entries of partitions, one at a time, until no entry is ready."""

from __future__ import annotations

import random
import time
from functools import lru_cache

import structlog
from msgspec import MsgspecError, structs

from ari_conf.http_client.deliver import attempt
from ari_conf.http_client.prepared_request import without_query
from ari_conf.http_client.retry_policy import AttemptOutcome, next_delay_ms, parse
from ari_conf.queues import callback_history, outbox, partitioned_queue
from ari_conf.queues.partitioned_queue import AccountProblem, ClaimedEntry, Disposition
from ari_conf.settings import settings
from ari_conf.store.problems import Problem, encoded, problems_key
from tasks.app import app
from tasks.worker import QueueConsumer, dead_letter_ttl_ms, process_wakeup, register_handler, unreadable

log = structlog.get_logger()
parsed = lru_cache(maxsize=1024)(parse)
USUAL_REDIRECTS = 2
GIVEN_UP = "its receiver has failed for more than a minute, and is tried only occasionally until it responds"


@app.task(name="tasks.callbacks.deliver")  # type: ignore[untyped-decorator]
def deliver(token: str) -> None:
    process_wakeup(outbox.QUEUE, token)


def deliver_once(worker: QueueConsumer, taken: ClaimedEntry) -> Disposition:
    """Make one attempt to deliver an entry, and return its disposition."""
    try:
        entry = outbox.decode(taken.entry)
    except MsgspecError as error:
        return unreadable(worker, taken, error)
    record = worker.account(entry.auth_id)
    if record is None:
        reason = "its account was removed: nothing can sign it"
        return _dead(taken, structs.replace(entry, reason=reason), reason, tell=False)
    if not worker.has_lease:
        return partitioned_queue.release(taken)  # this process was suspended; another worker may have claimed it
    if taken.given_up:
        return _dead(taken, structs.replace(entry, reason=GIVEN_UP), GIVEN_UP, tell=True)
    bare, policy, warnings = parsed(entry.url)
    if not entry.tries:
        for warning in warnings:
            log.warning("invalid retry fragment", auth_id=entry.auth_id, url=without_query(bare), warning=warning)
    outcome = attempt(
        entry.method,
        bare,
        entry.params,
        tokens=record.signing_tokens(),
        policy=policy,
        allowed_networks=settings().allowed_networks,
        remaining_ms=max(1, policy.total_ms - entry.elapsed_ms),
        account=entry.auth_id,
    )
    tried = outbox.Attempt(outcome.at_ms, outcome.ms, outcome.status, "" if outcome.ok else outcome.reason)
    if outcome.ok:
        whole = outbox.encode(structs.replace(entry, tries=(*entry.tries, tried)))
        return partitioned_queue.ack(
            taken, whole, settings().callbacks_kept, callback_history.DELIVERED_TTL_MS, wasted=_wasted(outcome)
        )
    tries = [*(AttemptOutcome(t.at_ms, t.ms, t.status) for t in entry.tries), outcome]
    delay_ms = next_delay_ms(policy, tries, entry.elapsed_ms + outcome.ms, random.random())
    if delay_ms is None:
        tried_last = structs.replace(entry, tries=(*entry.tries, tried))
        return _dead(taken, tried_last, outcome.description, tell=True, wasted=_wasted(outcome))
    tried = structs.replace(tried, delay_ms=delay_ms)
    again = outbox.encode(structs.replace(entry, tries=(*entry.tries, tried)))
    return partitioned_queue.retry(taken, again, delay_ms, wasted=_wasted(outcome))


def _wasted(outcome: AttemptOutcome) -> int:
    """Return the number of wasted requests. If they become many, the receiver is spared for a while.

    A success cancels one earlier failure: a receiver that answers is not flooded by its answers. Two redirects are
    usual (to https, and to another name); further ones are requests that the target did not ask for.
    """
    if outcome.ok:
        return max(0, outcome.redirects - USUAL_REDIRECTS) - 1
    # A request that was refused (`failure == "refused"`) was never sent.
    return outcome.redirects + (outcome.failure != "refused")


def _dead(taken: ClaimedEntry, entry: outbox.CallbackEntry, why: str, *, tell: bool, wasted: int = 0) -> Disposition:
    """Return a dead-letter disposition. `tell`: add it to the account's problems too, since users look there."""
    count, url = len(entry.tries), without_query(entry.url)
    log.warning("callback dead-lettered", auth_id=entry.auth_id, url=url, attempts=count, reason=why)
    told = None
    if tell:
        tries = "1 try" if count == 1 else f"{count} tries"
        text = f"a callback to {url} is a dead letter after {tries}: {why}"
        problem = Problem(time.time_ns() // 1_000_000, dict(entry.params).get("CallUUID", ""), text)
        told = AccountProblem(problems_key(entry.auth_id), encoded(problem), settings().problems_kept)
    kept = settings().dead_letters_kept, dead_letter_ttl_ms()
    return partitioned_queue.dead_letter(taken, outbox.encode(entry), *kept, told, wasted=wasted)


register_handler(outbox.QUEUE, lambda: settings().callback_threads, deliver_once)
