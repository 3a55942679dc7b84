"""Callback delivery: each run of the task makes one attempt to deliver a callback."""

from __future__ import annotations

import random
import time
from functools import lru_cache

import structlog
from msgspec import structs

from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.http_client.deliver import attempt
from ari_conf.http_client.prepared_request import without_query
from ari_conf.http_client.retry_policy import AttemptOutcome, next_delay_ms, parse
from ari_conf.queues import callback_outcomes, outbox, partitioned_queue
from ari_conf.queues.outbox import CallbackEntry
from ari_conf.queues.partitioned_queue import AccountProblem, ClaimedEntry, Disposition
from ari_conf.settings import settings
from ari_conf.store.problems import Problem, encoded, problems_key
from tasks.app import app
from tasks.entry_task import AttemptContext, EntryDescription, EntryTask, dead_letter_ttl_ms

log = structlog.get_logger()
parsed = lru_cache(maxsize=1024)(parse)
USUAL_REDIRECTS = 2
GIVEN_UP = "its receiver has failed for more than a minute, and is tried only occasionally until it responds"


class CallbackTask(EntryTask):
    name = "ari_conf.callback"
    queue_name = outbox.QUEUE
    attempt_limit_s = 120.0

    def max_threads(self) -> int:
        return settings().callback_threads

    def decode(self, entry: bytes) -> CallbackEntry:
        return outbox.decode(entry)

    def describe(self, job: CallbackEntry) -> EntryDescription:
        first = structs.replace(job, attempts=(), reason=None) if job.attempts else job
        arguments = {"account": job.auth_id, "url": without_query(parsed(job.url)[0])}
        return EntryDescription(outbox.encode(first), arguments, len(job.attempts))

    def attempt(self, worker: AttemptContext, claimed: ClaimedEntry, job: CallbackEntry) -> Disposition:
        return deliver_once(worker, claimed, job)


def deliver_once(worker: AttemptContext, claimed: ClaimedEntry, entry: CallbackEntry) -> Disposition:
    """Make one attempt to deliver an entry, and return its disposition."""
    record = worker.account(entry.auth_id)
    if record is None:
        reason = "its account was removed: nothing can sign it"
        return _dead_letter(claimed, structs.replace(entry, reason=reason), reason, is_problem=False)
    if not worker.has_lease:
        # This process was suspended; another worker may have claimed the entry.
        return partitioned_queue.release(claimed, "the worker's lease has expired")
    if claimed.given_up:
        return _dead_letter(claimed, structs.replace(entry, reason=GIVEN_UP), GIVEN_UP)
    bare, policy, warnings = parsed(entry.url)
    if not entry.attempts:
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
        whole = structs.replace(entry, attempts=(*entry.attempts, tried))
        history = _outcome(claimed, whole, "delivered") if settings().delivered_callbacks_days else b""
        return partitioned_queue.ack(claimed, history=history, wasted=_wasted(outcome))
    tries = [*(AttemptOutcome(t.at_ms, t.ms, t.status) for t in entry.attempts), outcome]
    delay_ms = next_delay_ms(policy, tries, entry.elapsed_ms + outcome.ms, random.random())
    if delay_ms is None:
        tried_last = structs.replace(entry, attempts=(*entry.attempts, tried))
        return _dead_letter(claimed, tried_last, outcome.description, wasted=_wasted(outcome))
    tried = structs.replace(tried, delay_ms=delay_ms)
    again = outbox.encode(structs.replace(entry, attempts=(*entry.attempts, tried)))
    return partitioned_queue.retry(claimed, again, delay_ms, outcome.description, wasted=_wasted(outcome))


def _wasted(outcome: AttemptOutcome) -> int:
    """Return the number of wasted requests. If they become many, the receiver is spared for a while.

    A success cancels one earlier failure: a receiver that answers is not flooded by its answers. Two redirects are
    usual (to https, and to another name); further ones are requests that the target did not ask for.
    """
    if outcome.ok:
        return max(0, outcome.redirects - USUAL_REDIRECTS) - 1
    # A request that was refused (`failure == "refused"`) was never sent.
    return outcome.redirects + (outcome.failure != "refused")


def _dead_letter(
    claimed: ClaimedEntry, entry: CallbackEntry, why: str, *, is_problem: bool = True, wasted: int = 0
) -> Disposition:
    """Return a dead-letter disposition. `is_problem`: list it among the account's problems, since users look there."""
    count, url = len(entry.attempts), without_query(entry.url)
    log.warning("callback dead-lettered", auth_id=entry.auth_id, url=url, attempts=count, reason=why)
    problem = None
    if is_problem:
        tries = "1 try" if count == 1 else f"{count} tries"
        text = f"a callback to {url} is a dead letter after {tries}: {why}"
        call_uuid = dict(entry.params).get("CallUUID", "")
        report = Problem(time.time_ns() // 1_000_000, call_uuid, ProblemKind.CALLBACK_DEAD_LETTERED, text)
        problem = AccountProblem(problems_key(entry.auth_id), encoded(report), settings().problems_kept)
    kept = settings().dead_letters_kept, dead_letter_ttl_ms()
    dead = _outcome(claimed, structs.replace(entry, reason=entry.reason or why), "dead")
    return partitioned_queue.dead_letter(
        claimed, outbox.encode(entry), *kept, problem, why, history=dead, wasted=wasted
    )


def _outcome(claimed: ClaimedEntry, entry: CallbackEntry, outcome: str) -> bytes:
    return callback_outcomes.history_entry(claimed.partition, entry, outcome, time.time_ns() // 1_000_000)


app.register_task(CallbackTask())
