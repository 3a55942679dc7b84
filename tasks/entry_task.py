"""Tasks of the queues: each run is one attempt at an entry, and its task id stays the same for all attempts.

A worker's thread claims an entry in Redis and executes its task itself (`EntryTask.execute`), with Celery's own request
and tracer. So `celery inspect`, `celery events`, Flower, and everything that listens to Celery's signals see the run
as they see any task: its arguments name the partition, the account, and the recording or URL.

A message of Celery would have to be made, sent, stored, received and acknowledged for each attempt, which costs more
than the attempt (docs/architecture/decisions.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2s
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog
from celery import Task  # type: ignore[import-untyped]
from celery.concurrency.solo import TaskPool  # type: ignore[import-untyped]
from celery.exceptions import Reject, Retry, TaskRevokedError  # type: ignore[import-untyped]
from celery.worker.request import Request  # type: ignore[import-untyped]
from celery.worker.state import task_ready, task_reserved  # type: ignore[import-untyped]
from kombu.message import Message
from msgspec import MsgspecError
from redis import RedisError

from ari_conf.errors import REPORT_HINT
from ari_conf.queues import partitioned_queue
from ari_conf.queues.partitioned_queue import ClaimedEntry, Disposition, Outcome
from ari_conf.settings import settings
from ari_conf.store import accounts

if TYPE_CHECKING:
    from tasks.worker import QueueConsumer

log = structlog.get_logger()
BUG_RETRY_MS = 10_000
NO_ENTRY = "entries are claimed from their queue in Redis; a message of Celery has none"
_in_this_thread = TaskPool()
_in_this_thread.start()


class AttemptFailed(Exception):
    """An attempt was not successful, and the entry is attempted again."""


class DeadLettered(Exception):
    """The last attempt was not successful: the entry is a dead letter."""


@dataclass(frozen=True, slots=True)
class EntryDescription:
    """Description of an entry for operators."""

    identity: bytes
    """The same for every attempt at this entry, and for no other entry of its queue."""
    arguments: dict[str, str]
    attempts: int
    """Number of earlier attempts."""


@dataclass(slots=True)
class EntryRun:
    """An attempt at a claimed entry."""

    worker: QueueConsumer
    claimed: ClaimedEntry
    job: Any
    """The decoded entry, or the exception with which decoding failed."""
    disposition: Disposition


class EntryTask(Task):  # type: ignore[misc]
    """Base class of the tasks. A subclass names its queue and says how an entry is read, described and attempted."""

    abstract = True
    queue_name: str
    throws = (DeadLettered,)

    def max_threads(self) -> int:
        """Return the number of threads of a worker that may execute this task at the same time."""
        raise NotImplementedError

    def decode(self, entry: bytes) -> Any:
        """Decode an entry. Raises MsgspecError if it is damaged or from another version."""
        raise NotImplementedError

    def describe(self, job: Any) -> EntryDescription:
        raise NotImplementedError

    def attempt(self, worker: QueueConsumer, claimed: ClaimedEntry, job: Any) -> Disposition:
        """Make one attempt at an entry. May raise RedisError: the entry is then released."""
        raise NotImplementedError

    def report(self, worker: QueueConsumer) -> None:
        """Called every TELL_S while a worker consumes the queue. May raise RedisError."""

    def execute(self, worker: QueueConsumer, claimed: ClaimedEntry) -> Disposition:
        """Run the task for a claimed entry in this thread, and return the entry's disposition."""
        try:
            job = self.decode(claimed.entry)
            about = self.describe(job)
        except MsgspecError as error:
            job, about = error, EntryDescription(claimed.entry, {}, 0)
        # This disposition stays only if the attempt is not made, because an operator has revoked the task.
        run = EntryRun(worker, claimed, job, partitioned_queue.retry(claimed, claimed.entry, BUG_RETRY_MS, "revoked"))
        request = self._request_for(run, about)
        task_reserved(request)
        try:
            if request.eventer and request.eventer.enabled:
                request.send_event(
                    "task-received",
                    name=self.name,
                    args=repr(request.args),
                    kwargs=repr(request.kwargs),
                    root_id=request.id,
                    parent_id=None,
                    retries=about.attempts,
                    eta=None,
                    expires=None,
                )
            request.execute_using_pool(_in_this_thread)
        except TaskRevokedError:
            pass
        except Exception:
            task_ready(request)
            log.exception("task raised", task=self.name, hint=REPORT_HINT)
        return run.disposition

    def _request_for(self, run: EntryRun, about: EntryDescription) -> Any:
        digest = blake2s(self.queue_name.encode() + b"\0" + about.identity, digest_size=16).digest()
        headers = {
            "id": str(UUID(bytes=digest)),
            "task": self.name,
            "retries": about.attempts,
            "ignore_result": True,
            "entry_run": run,
        }
        return Request(
            Message(headers=headers, delivery_info={"routing_key": self.queue_name}),  # type: ignore[no-untyped-call]
            app=self.app,
            hostname=run.worker.hostname,
            eventer=run.worker.event_dispatcher,
            task=self,
            body=((run.claimed.partition,), about.arguments, {}),
            decoded=True,
        )

    def run(self, partition: str = "", **_arguments: str) -> str:
        """Make the attempt, and tell Celery its outcome. The arguments only describe it."""
        run: EntryRun | None = self.request.get("entry_run")
        if run is None:
            raise Reject(NO_ENTRY, requeue=False)
        disposition = run.disposition = self._attempt(run)
        match disposition.outcome:
            case Outcome.DEAD_LETTER:
                raise DeadLettered(disposition.reason)
            case Outcome.RETRY | Outcome.RELEASE:
                reason = disposition.reason or "released"
                raise Retry(reason, exc=AttemptFailed(reason))
        return disposition.reason or "done"

    def _attempt(self, run: EntryRun) -> Disposition:
        worker, claimed = run.worker, run.claimed
        if isinstance(run.job, MsgspecError):
            return self._undecodable(claimed, run.job)
        try:
            return self.attempt(worker, claimed, run.job)
        except RedisError as error:
            return partitioned_queue.release(claimed, str(error))
        except Exception as error:
            # A bug in our code. The entry is kept and retried, so nothing in the partition is lost until it is fixed.
            log.exception("job raised", queue=self.queue_name, partition=claimed.partition, hint=REPORT_HINT)
            return partitioned_queue.retry(claimed, claimed.entry, BUG_RETRY_MS, f"raised {type(error).__name__}")

    def _undecodable(self, claimed: ClaimedEntry, error: MsgspecError) -> Disposition:
        """Return a dead letter: the entry is damaged or from another version, and its partition continues."""
        reason = str(error)
        log.error(
            "queue entry undecodable",
            queue=self.queue_name,
            partition=claimed.partition,
            reason=reason,
            action="dead-lettered",
        )
        kept = settings().dead_letters_kept, dead_letter_ttl_ms()
        return partitioned_queue.dead_letter(claimed, claimed.entry, *kept, reason=reason)


def dead_letter_ttl_ms() -> int:
    return settings().dead_letters_days * accounts.DAY_MS
