"""Writing of the history: each run of the task writes what waits in the inbox of one account into the database."""

from __future__ import annotations

import time
from functools import cache

import structlog
from msgspec import json, structs

from ari_conf.errors import HistoryUnavailable
from ari_conf.history import writer
from ari_conf.history.database import HistoryDatabase
from ari_conf.queues import history_inbox, partitioned_queue
from ari_conf.queues.history_inbox import Job
from ari_conf.queues.partitioned_queue import ClaimedEntry, Disposition
from ari_conf.settings import settings
from tasks.app import app
from tasks.entry_task import AttemptContext, EntryDescription, EntryTask

log = structlog.get_logger()
FIRST_RETRY_MS, MAX_RETRY_MS = 1_000, 30_000
RUN_S = 5.0
"""Seconds after which an attempt ends, so that the history of other accounts gets the thread too."""


class HistoryTask(EntryTask):
    name = "ari_conf.history"
    queue_name = history_inbox.QUEUE
    attempt_limit_s = 300.0

    def max_threads(self) -> int:
        return 1

    def decode(self, entry: bytes) -> Job:
        return json.decode(entry, type=Job)

    def describe(self, job: Job) -> EntryDescription:
        return EntryDescription(f"{job.auth_id} {job.at_ms}".encode(), {"account": job.auth_id}, job.attempts)

    def report(self, worker: AttemptContext) -> None:
        history_inbox.report_file(worker.redis, worker.id.rsplit("-", 2)[0], _database().file_id)

    def attempt(self, worker: AttemptContext, claimed: ClaimedEntry, job: Job) -> Disposition:
        try:
            is_empty = _write(worker, job.auth_id)
        except HistoryUnavailable as error:
            delay_ms = int(min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** min(job.attempts, 10)))
            log.warning("history not written", reason=str(error), auth_id=job.auth_id, retry_in_ms=delay_ms)
            again = json.encode(structs.replace(job, attempts=job.attempts + 1))
            return partitioned_queue.retry(claimed, again, delay_ms, str(error))
        if is_empty:
            return partitioned_queue.ack(claimed)
        return partitioned_queue.release(claimed, "more waits, or the worker is stopping")


def _write(worker: AttemptContext, auth_id: str) -> bool:
    """Write what waits in the account's inbox; return whether it is empty. Raises HistoryUnavailable, RedisError."""
    until = time.monotonic() + RUN_S
    while worker.has_lease and not worker.stopping.is_set() and time.monotonic() < until:
        entries = history_inbox.oldest(worker.redis, auth_id)
        if not entries:
            return True
        written = writer.write(database(), entries)
        # If this worker dies here, another one writes the same again, which changes nothing.
        history_inbox.remove(worker.redis, auth_id, entries, written.unreadable)
    return False


@cache
def _database() -> HistoryDatabase:
    return HistoryDatabase(settings())


def database() -> HistoryDatabase:
    """Return this process's database, whose tables are up to date. Raises HistoryUnavailable."""
    found = _database()
    if not found.is_ready and found.migrate():
        log.info("history database migrated", database=found.shown_url)
    return found


app.register_task(HistoryTask())
