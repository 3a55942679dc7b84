"""Tasks of the queues: each run is one attempt at an entry, and its task id stays the same for all attempts.

A worker's thread claims an entry in Redis and executes its task itself (`EntryTask.execute`), and tells Celery's own
request what happens. So `celery inspect`, `celery events` and Flower see the run as they see any task: its arguments
name the partition, the account, and the recording or URL.

A message of Celery would have to be made, sent, stored, received and acknowledged for each attempt, which costs more
than the attempt (docs/architecture/decisions.md).
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from hashlib import blake2s
from threading import Event
from typing import Any, Protocol
from uuid import UUID

import structlog
from billiard.einfo import ExceptionInfo  # type: ignore[import-untyped]
from celery import Task  # type: ignore[import-untyped]
from celery.exceptions import Reject, Retry  # type: ignore[import-untyped]
from celery.worker.request import Request  # type: ignore[import-untyped]
from celery.worker.state import task_reserved  # type: ignore[import-untyped]
from kombu.message import Message
from msgspec import MsgspecError
from redis import Redis, RedisError

from ari_conf.errors import REPORT_HINT
from ari_conf.queues import partitioned_queue
from ari_conf.queues.partitioned_queue import ClaimedEntry, Disposition, Outcome
from ari_conf.settings import settings
from ari_conf.store import accounts
from ari_conf.store.accounts import AccountRecord
from tasks.event_sender import EventSender

log = structlog.get_logger()
BUG_RETRY_MS = 10_000
UNDECODABLE = (MsgspecError, RecursionError)
"""Exceptions of a decoder; RecursionError stands for JSON that is nested too deeply."""
NO_ENTRY = "entries are claimed from their queue in Redis; a message of Celery has none"


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


class _Request(Request):  # type: ignore[misc]
    @property
    def eventer(self) -> EventSender:
        sender: EventSender = self._eventer
        return sender

    @eventer.setter
    def eventer(self, _dispatcher: Any) -> None:
        """Keep the event sender. After a reconnection, Celery sets its own dispatcher, for which the thread waits."""


class AttemptContext(Protocol):
    """Consumer of the task's queue, as far as an attempt may use it."""

    id: str
    redis: Redis
    stopping: Event
    event_sender: EventSender

    @property
    def hostname(self) -> str: ...

    @property
    def has_lease(self) -> bool: ...

    def account(self, auth_id: str) -> AccountRecord | None: ...


class EntryTask(Task):  # type: ignore[misc]
    """Base class of the tasks. A subclass names its queue and says how an entry is read, described and attempted."""

    abstract = True
    queue_name: str
    attempt_limit_s: float | None = None
    """Seconds after which an attempt counts as stuck, since all its requests have time limits; None: it has none."""

    def max_threads(self) -> int:
        """Return the number of threads of a worker that may execute this task at the same time."""
        raise NotImplementedError

    def decode(self, entry: bytes) -> Any:
        """Decode an entry. Raises one of UNDECODABLE if it is damaged or from another version."""
        raise NotImplementedError

    def describe(self, job: Any) -> EntryDescription:
        raise NotImplementedError

    def attempt(self, worker: AttemptContext, claimed: ClaimedEntry, job: Any) -> Disposition:
        """Make one attempt at an entry. May raise RedisError: the entry is then released."""
        raise NotImplementedError

    def report(self, worker: AttemptContext) -> None:
        """Called every REPORT_INTERVAL_S while a worker consumes the queue. May raise RedisError."""

    def execute(self, worker: AttemptContext, claimed: ClaimedEntry) -> Disposition:
        """Run the task for a claimed entry in this thread, and return the entry's disposition."""
        try:
            job = self.decode(claimed.entry)
            about = self.describe(job)
        except UNDECODABLE as error:
            job, about = error, EntryDescription(claimed.entry, {}, 0)
        request = self._request_for(worker, claimed, about)
        task_reserved(request)
        if request.eventer.enabled:
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
        began = time.monotonic()
        request.on_accepted(os.getpid(), began)
        disposition = self._attempt(worker, claimed, job)
        try:
            self._tell_outcome(request, disposition, time.monotonic() - began)
        except Exception:
            # The attempt has been made, and must not be repeated.
            log.exception("outcome not told to celery", task=self.name, hint=REPORT_HINT)
        return disposition

    def _request_for(self, worker: AttemptContext, claimed: ClaimedEntry, about: EntryDescription) -> Any:
        digest = blake2s(self.queue_name.encode() + b"\0" + about.identity, digest_size=16).digest()
        headers = {"id": str(UUID(bytes=digest)), "task": self.name, "retries": about.attempts, "ignore_result": True}
        return _Request(
            Message(headers=headers, delivery_info={"routing_key": self.queue_name}),  # type: ignore[no-untyped-call]
            app=self.app,
            hostname=worker.hostname,
            eventer=worker.event_sender,
            task=self,
            body=((claimed.partition,), about.arguments, {}),
            decoded=True,
        )

    def _tell_outcome(self, request: Any, disposition: Disposition, seconds: float) -> None:
        """Tell Celery the outcome, as its pool does after a run."""
        try:
            match disposition.outcome:
                case Outcome.DEAD_LETTER:
                    raise DeadLettered(disposition.reason)
                case Outcome.RETRY | Outcome.RELEASE:
                    reason = disposition.reason or "released"
                    raise Retry(reason, exc=AttemptFailed(reason))
        except (DeadLettered, Retry):
            request.on_failure(ExceptionInfo(), return_ok=True)
        else:
            request.on_success((False, "'done'", seconds))

    def run(self, *_arguments: str, **_described: str) -> None:
        """Reject a message of Celery: there is no entry in it."""
        raise Reject(NO_ENTRY, requeue=False)

    def _attempt(self, worker: AttemptContext, claimed: ClaimedEntry, job: Any) -> Disposition:
        if isinstance(job, UNDECODABLE):
            return self._undecodable(claimed, job)
        try:
            return self.attempt(worker, claimed, job)
        except RedisError as error:
            return partitioned_queue.release(claimed, str(error))
        except Exception as error:
            # A bug in our code. The entry is kept and retried, so nothing in the partition is lost until it is fixed.
            log.exception("job raised", queue=self.queue_name, partition=claimed.partition, hint=REPORT_HINT)
            return partitioned_queue.retry(claimed, claimed.entry, BUG_RETRY_MS, f"raised {type(error).__name__}")

    def _undecodable(self, claimed: ClaimedEntry, error: Exception) -> Disposition:
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
