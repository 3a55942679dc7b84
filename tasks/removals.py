"""Removal of accounts: each run of the task makes one attempt at the removal of an account."""

from __future__ import annotations

from msgspec import json, structs

from ari_conf.administration import removal
from ari_conf.queues import partitioned_queue
from ari_conf.queues.partitioned_queue import ClaimedEntry, Disposition
from ari_conf.settings import settings
from ari_conf.store import removals
from ari_conf.store.removals import RemovalJob
from tasks.app import app
from tasks.entry_task import AttemptContext, EntryDescription, EntryTask


class RemovalTask(EntryTask):
    name = "ari_conf.removal"
    queue_name = removals.QUEUE

    def max_threads(self) -> int:
        return 1

    def decode(self, entry: bytes) -> RemovalJob:
        return json.decode(entry, type=RemovalJob)

    def describe(self, job: RemovalJob) -> EntryDescription:
        return EntryDescription(f"{job.auth_id} {job.at_ms}".encode(), {"account": job.auth_id}, job.attempts)

    def attempt(self, worker: AttemptContext, claimed: ClaimedEntry, job: RemovalJob) -> Disposition:
        def may_continue() -> bool:
            return worker.has_lease and not worker.stopping.is_set()

        if not may_continue():
            return partitioned_queue.release(claimed, "the worker is stopping, or its lease has expired")
        delay_ms = removal.advance(worker.redis, settings(), job.auth_id, may_continue)
        if delay_ms is None:
            return partitioned_queue.ack(claimed)
        again = json.encode(structs.replace(job, attempts=job.attempts + 1))
        return partitioned_queue.retry(claimed, again, delay_ms, "not done yet")


app.register_task(RemovalTask())
