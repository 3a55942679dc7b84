"""Step writer (write-ahead): the effects of a step run only after the step has been written to Redis.

Steps that arrive during a write are batched into the next one. A step in which only talking has changed lingers
briefly, so that it joins a later write.

While Redis is unreachable or accepts nothing, effects run immediately (conferences continue from memory), and steps
queue: each is encoded once, in batches that are written sequentially when Redis is back. At most MAX_QUEUED_BYTES are
queued. Beyond that, callbacks and speech notes are dropped, and reported; recordings to be stored are kept. All live
state is written again at the end.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from ari_conf.core.effects import ExecutedEffect, IdentifyCall, PrepareSound, ReportProblem, WarmSounds
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.errors import REPORT_HINT, LeaseLost, StoreRefused, StoreUnavailable
from ari_conf.store.step_batch import Batch, Step

log = structlog.get_logger()

SLOW_WRITE_S = 0.25
"""Seconds after which a write no longer holds up effects."""
RETRY_DELAY_S = 0.5
LOG_INTERVAL_S = 60.0
"""Minimum seconds between two log entries with the same reason while Redis is unreachable."""
LINGER_S = 0.25
"""Seconds for which a change of talking may wait for other steps; while many members talk, most steps are such changes.
If the server is killed in the meantime, the next process restarts talk detection and receives the same events."""
READ_ONLY_EFFECTS = (IdentifyCall, PrepareSound, WarmSounds)
"""Effects that change nothing anywhere, so that running them before their step is written does no harm."""
MAX_QUEUED_BYTES = 256 * 1024**2
"""Maximum bytes of steps that wait for Redis, compressed: more than an hour of 300 callbacks per second."""
MAX_OVERFLOW_JOBS = 20_000
"""Maximum number of recordings to be stored that are kept beyond MAX_QUEUED_BYTES."""


class StepSink(Protocol):
    def batch(self) -> Batch: ...
    async def send(self, batch: Batch) -> None: ...


class StepWriter:
    def __init__(
        self,
        store: StepSink,
        run_effect: Callable[[ExecutedEffect], None],
        on_lease_lost: Callable[[], None] = lambda: None,
        build_pending: Callable[[], Step | None] = lambda: None,
        write_all: Callable[[], None] = lambda: None,
    ) -> None:
        """Create the writer.

        `run_effect` starts an effect. `on_lease_lost` is called when another process has taken over. `build_pending`
        is called before each write and returns changes that are in no step. `write_all` requests a rewrite of all live
        state.
        """
        self._store = store
        self._run_effect = run_effect
        self._on_lease_lost = on_lease_lost
        self._build_pending = build_pending
        self._write_all = write_all
        self._open = store.batch()
        """The batch to which new steps are added."""
        self._closed: deque[Batch] = deque()
        """Batches that wait; the first of them is being written."""
        self._bytes = 0
        """Bytes of the closed batches."""
        self._overflow_jobs = 0
        """Number of recordings to be stored that were kept beyond MAX_QUEUED_BYTES."""
        self.dropped = Counter[str]()
        """Number of dropped callbacks by account, until they are reported."""
        self._steps_dropped = False
        """True if steps were dropped, so that Redis does not receive all changes."""
        self._is_slow = False
        """True while the current write takes longer than SLOW_WRITE_S."""
        self._write_requested = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._lingering: asyncio.TimerHandle | None = None
        self.redis_unavailable = False
        """True while Redis is unreachable or accepts nothing, and until all queued batches are written."""
        self._logged_reason = ""
        """The logged reason why Redis is unreachable, otherwise empty."""
        self._logged_at = float("-inf")
        self._now_ms = 0
        """Time of the last step: milliseconds of the server's clock."""

    @property
    def backlog(self) -> int:
        """Return the number of steps that are not written yet."""
        return self._open.steps + sum(batch.steps for batch in self._closed)

    def unwritten(self) -> tuple[int, int]:
        """Return the numbers of callbacks and of recordings to be stored that are not written yet."""
        batches = (self._open, *self._closed)
        return sum(sum(batch.callbacks.values()) for batch in batches), sum(batch.jobs for batch in batches)

    def submit(self, step: Step, effects: Sequence[ExecutedEffect], *, may_linger: bool = False) -> None:
        """Queue the step, and the effects to run after its write; READ_ONLY_EFFECTS run immediately.

        `may_linger`: only talking has changed.
        """
        self._add_to_batch(step)
        deferred = [effect for effect in effects if not isinstance(effect, READ_ONLY_EFFECTS)]
        self._open.effects += deferred
        if may_linger and not deferred and not step.has_more_than_state:
            self.write_soon()
        else:
            self.write_now()
        for effect in effects:
            if isinstance(effect, READ_ONLY_EFFECTS):
                self._run_effect(effect)
        if self.redis_unavailable or self._is_slow:
            self._run_effects(self._open)
        if self._open.is_full:
            self._close_batch()

    def write_soon(self) -> None:
        """Request a write within LINGER_S, or with the next step: only talking has changed."""
        self._idle.clear()
        if self._lingering is None:
            self._lingering = asyncio.get_running_loop().call_later(LINGER_S, self.write_now)

    def write_now(self) -> None:
        """Request a write now: the state has changed."""
        self._idle.clear()
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        self._write_requested.set()

    async def run(self) -> None:
        """Write what is requested until another process has taken over."""
        try:
            while True:
                await self._write_requested.wait()
                self._write_requested.clear()
                await self._write()
        except LeaseLost:
            # The new owner now acts on these calls, so this process must not.
            self._open = self._store.batch()
            self._closed.clear()
            self.redis_unavailable = self._is_slow = False
            self._on_lease_lost()

    async def wait_until_drained(self) -> None:
        """Wait until all submitted steps are written."""
        if self._lingering is not None:
            self.write_now()
        await self._idle.wait()

    # Queuing.

    def _add_to_batch(self, step: Step) -> None:
        self._now_ms = step.now_ms
        if self._bytes + self._open.bytes >= MAX_QUEUED_BYTES:
            step = self._keep_jobs_only(step)
            if not step.jobs:
                return
        try:
            self._open.add(step)
        except Exception:
            log.exception("step encoding raised", hint=REPORT_HINT)
            self._open.steps += 1  # the batch counts as not empty, so that its effects run

    def _keep_jobs_only(self, step: Step) -> Step:
        """Return a step with what is kept of `step` although MAX_QUEUED_BYTES are queued: recordings to be stored."""
        if not self._steps_dropped:
            self._steps_dropped = self.redis_unavailable = True
            self._run_queued_effects()
            log.error(
                "step queue overflowed",
                reason="Redis was unavailable for too long",
                action="dropping new callbacks until Redis is available",
                waiting_mb=MAX_QUEUED_BYTES // 1024**2,
            )
        self.dropped.update(callback.auth_id for callback in step.callbacks)
        kept = step.jobs[: MAX_OVERFLOW_JOBS - self._overflow_jobs]
        self._overflow_jobs += len(kept)
        if len(kept) < len(step.jobs):
            log.error(
                "recordings not queued",
                reason="too many recordings wait for Redis",
                hint="save the files from Asterisk's recording folder",
            )
        return Step(step.now_ms, jobs=kept)

    def _close_batch(self) -> None:
        self._open.close()
        if self._closed:
            self._open.park()
        self._bytes += self._open.bytes
        self._closed.append(self._open)
        self._open = self._store.batch()

    # Writing.

    async def _write(self) -> None:
        while True:
            if not self._closed:
                if (pending := self._build_pending()) is not None:
                    self._add_to_batch(pending)
                if not self._open:
                    break
                self._close_batch()
            batch = self._closed[0]
            batch.unpark()
            slow_timer = asyncio.get_running_loop().call_later(SLOW_WRITE_S, self._on_slow_write)
            try:
                await self._store.send(batch)
            except StoreRefused as error:
                self._split_refused(batch, str(error))
                continue
            except StoreUnavailable as error:
                self._on_redis_unavailable(str(error))
                await asyncio.sleep(RETRY_DELAY_S)
                continue
            finally:
                slow_timer.cancel()
            self._is_slow = False
            self._remove_first(batch)
            self._run_effects(batch)
            if self._logged_reason:
                log.info("redis recovered", queued_steps=self.backlog + batch.steps)
                self._logged_reason = ""
            if self.redis_unavailable and not self._closed:
                self._on_redis_recovered()
        self._idle.set()

    def _remove_first(self, batch: Batch) -> None:
        self._closed.popleft()
        self._bytes -= batch.bytes

    def _split_refused(self, batch: Batch, reason: str) -> None:
        """Halve a batch that Redis refuses permanently, or leave out what can't be split; the rest is written."""
        halves = batch.halves()
        self._remove_first(batch)
        if halves is not None:
            self._closed.extendleft(reversed(halves))
            return
        self._run_effects(batch)
        log.error(
            "step rejected by redis",
            reason=reason,
            action="skipping it",
            callbacks=sum(batch.callbacks.values()),
        )
        for auth_id in batch.callbacks:
            self._report_lost(auth_id, f"a callback was dropped: {reason}")

    def _report_lost(self, auth_id: str, text: str) -> None:
        problem = ReportProblem(auth_id, "", ProblemKind.CALLBACKS_LOST, None, text)
        self._open.add(Step(self._now_ms, problems=[problem]))

    def _on_redis_unavailable(self, reason: str) -> None:
        now = asyncio.get_running_loop().time()
        if reason != self._logged_reason or now - self._logged_at > LOG_INTERVAL_S:
            log.error("redis unavailable", reason=reason, queued_steps=self.backlog)
            self._logged_reason, self._logged_at = reason, now
        self.redis_unavailable = True
        self._run_queued_effects()

    def _on_redis_recovered(self) -> None:
        """Report dropped callbacks, and rewrite the state if steps were dropped: all queued batches are written."""
        self.redis_unavailable, self._overflow_jobs = False, 0
        for auth_id, count in self.dropped.items():
            text = f"{count} callbacks were dropped: Redis was unavailable for longer than ari_conf can queue them"
            self._report_lost(auth_id, text)
        if self.dropped:
            reason = "Redis was unavailable for too long"
            log.error("callbacks dropped", callbacks=self.dropped.total(), reason=reason)
        self.dropped.clear()
        if self._steps_dropped:
            self._steps_dropped = False
            self._write_all()

    # Effects.

    def _on_slow_write(self) -> None:
        self._is_slow = True
        self._run_queued_effects()

    def _run_queued_effects(self) -> None:
        """Run all queued effects, in order."""
        for batch in (*self._closed, self._open):
            self._run_effects(batch)

    def _run_effects(self, batch: Batch) -> None:
        effects, batch.effects = batch.effects, []
        for effect in effects:
            self._run_effect(effect)
