"""Written before done: a step's effects run once the step is in Redis.

Steps that come while a write is under way are written together in the next one, and one in which nothing but talk has
changed lingers a little, so that it goes with the next.

While Redis can't be reached or takes nothing, effects run at once (conferences go on from memory), and steps wait: each
encoded once, in batches that are written one after another when it is back. At most MOST_BYTES of them wait. What comes
then is dropped (callbacks, notes of who spoke), and said so, but for recordings that are to be stored; what lives is
written again, all of it, at the end.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from ari_conf.batch import Batch, Step
from ari_conf.core.effects import Effect, IdentifyCall, PrepareSound, ReportProblem, WarmSounds
from ari_conf.errors import LeaseLost, StoreRefused, StoreUnavailable

log = structlog.get_logger()

PATIENCE_S = 0.25
"""A write that takes longer doesn't hold up the calls any more."""
TRY_AGAIN_S = 0.5
SAID_AGAIN_S = 60.0
"""While Redis is away its reason is said again so seldom."""
LINGER_S = 0.25
"""For which a change of who talks may wait for others: while many talk that is most of them. Should we be killed
meanwhile, our successor has talk detection begun again, and is told the same."""
ONLY_ASK = (IdentifyCall, PrepareSound, WarmSounds)
"""These change nothing, anywhere: done before their step is written they can't be wrong."""
MOST_BYTES = 256 * 1024**2
"""Of steps that wait for Redis, compressed: more than an hour of 300 callbacks a second."""
MOST_JOBS = 20_000
"""Recordings to be stored that are kept beyond that."""


class Steps(Protocol):
    def batch(self) -> Batch: ...
    async def send(self, batch: Batch) -> None: ...


class Writer:
    def __init__(
        self,
        store: Steps,
        run: Callable[[Effect], None],
        written: Callable[[], None],
        lost: Callable[[], None] = lambda: None,
        changed: Callable[[], Step | None] = lambda: None,
        write_all: Callable[[], None] = lambda: None,
    ) -> None:
        """`run` starts an effect; `written` is told after each write that had callbacks in it; `lost`, that another
        process has taken over; `changed` is asked before each write what has changed beside the steps; `write_all` is
        to have all that lives written again."""
        self._store = store
        self._run = run
        self._written = written
        self._lost = lost
        self._changed = changed
        self._write_all = write_all
        self._open = store.batch()
        """Takes the steps that come."""
        self._closed: deque[Batch] = deque()
        """Wait, the first of them is being written."""
        self._bytes = 0
        """Of those that are closed."""
        self._jobs = 0
        """Kept although there was no room."""
        self.dropped = Counter[str]()
        """Callbacks for which there was no room, by account, until that is told."""
        self._incomplete = False
        """Steps were dropped: what is written is not all that has changed."""
        self._late = False
        """The write that is under way takes long."""
        self._wanted = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._lingering: asyncio.TimerHandle | None = None
        self.away = False
        """Redis can't be reached or takes nothing, or not all that waited for it is written yet."""
        self._said = ""
        """Why it is away."""
        self._said_at = float("-inf")
        self._now_ms = 0
        """Of the last step."""

    @property
    def waiting(self) -> int:
        """Steps that are not written yet."""
        return self._open.steps + sum(batch.steps for batch in self._closed)

    def unwritten(self) -> tuple[int, int]:
        """How many callbacks and how many recordings to be stored wait to be written."""
        batches = (self._open, *self._closed)
        return sum(sum(batch.callbacks.values()) for batch in batches), sum(batch.jobs for batch in batches)

    def put(self, step: Step, effects: Sequence[Effect], *, may_linger: bool = False) -> None:
        """`may_linger`: nothing has changed but who talks."""
        self._take(step)
        waits = [effect for effect in effects if not isinstance(effect, ONLY_ASK)]
        self._open.effects += waits
        if may_linger and not waits and not step.more:
            self.linger()
        else:
            self.hurry()
        for effect in effects:
            if isinstance(effect, ONLY_ASK):
                self._run(effect)
        if self.away or self._late:
            self._start(self._open)
        if self._open.full:
            self._close()

    def linger(self) -> None:
        """Who talks has changed, and nothing else: soon, or with the next step, it is written."""
        self._idle.clear()
        if self._lingering is None:
            self._lingering = asyncio.get_running_loop().call_later(LINGER_S, self.hurry)

    def hurry(self) -> None:
        """Something has changed: it is written now."""
        self._idle.clear()
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        self._wanted.set()

    async def run(self) -> None:
        """Until another process has taken over."""
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                await self._write()
        except LeaseLost:
            # What the other one does now, this one must not do.
            self._open = self._store.batch()
            self._closed.clear()
            self.away = self._late = False
            self._lost()

    async def drained(self) -> None:
        """Until all that was put is written."""
        if self._lingering is not None:
            self.hurry()
        await self._idle.wait()

    # What comes.

    def _take(self, step: Step) -> None:
        self._now_ms = step.now_ms
        if self._bytes + self._open.bytes >= MOST_BYTES:
            step = self._without_room(step)
            if not step.jobs:
                return
        try:
            self._open.add(step)
        except Exception:
            log.exception("a step can't be encoded: this is a defect of ari_conf, please report it")
            self._open.steps += 1  # so that its effects have their turn

    def _without_room(self, step: Step) -> Step:
        """What of it is kept all the same."""
        if not self._incomplete:
            self._incomplete = self.away = True
            self._release()
            log.error(
                "redis has been away for too long: callbacks that come now are dropped until it is back",
                waiting_mb=MOST_BYTES // 1024**2,
            )
        self.dropped.update(callback.auth_id for callback in step.callbacks)
        kept = step.jobs[: MOST_JOBS - self._jobs]
        self._jobs += len(kept)
        if len(kept) < len(step.jobs):
            log.error("recordings are not stored: too many wait for redis; see Asterisk's recording folder")
        return Step(step.now_ms, jobs=kept)

    def _close(self) -> None:
        self._open.close()
        if self._closed:
            self._open.park()
        self._bytes += self._open.bytes
        self._closed.append(self._open)
        self._open = self._store.batch()

    # What is written.

    async def _write(self) -> None:
        while True:
            if not self._closed:
                if (beside := self._changed()) is not None:
                    self._take(beside)
                if not self._open:
                    break
                self._close()
            batch = self._closed[0]
            batch.unpark()
            patience = asyncio.get_running_loop().call_later(PATIENCE_S, self._is_late)
            try:
                await self._store.send(batch)
            except StoreRefused as error:
                self._split(batch, str(error))
                continue
            except StoreUnavailable as error:
                self._goes_away(str(error))
                await asyncio.sleep(TRY_AGAIN_S)
                continue
            finally:
                patience.cancel()
            self._late = False
            self._end(batch)
            self._start(batch)
            if batch.callbacks:
                self._written()
            if self._said:
                log.info("redis is back", steps=self.waiting + batch.steps)
                self._said = ""
            if self.away and not self._closed:
                self._comes_back()
        self._idle.set()

    def _end(self, batch: Batch) -> None:
        self._closed.popleft()
        self._bytes -= batch.bytes

    def _split(self, batch: Batch, reason: str) -> None:
        """What Redis refuses for good costs itself, and not what stands before and behind it."""
        halves = batch.halves()
        self._end(batch)
        if halves is not None:
            self._closed.extendleft(reversed(halves))
            return
        self._start(batch)
        log.error(
            "redis refuses what is to be written: it is left out",
            reason=reason,
            callbacks=sum(batch.callbacks.values()),
        )
        for auth_id in batch.callbacks:
            self._report(auth_id, f"a callback was dropped: {reason}")

    def _report(self, auth_id: str, text: str) -> None:
        self._open.add(Step(self._now_ms, problems=[ReportProblem(auth_id, "", None, text)]))

    def _goes_away(self, reason: str) -> None:
        now = asyncio.get_running_loop().time()
        if reason != self._said or now - self._said_at > SAID_AGAIN_S:
            log.error("redis away: conferences go on, what is to be written waits", reason=reason, steps=self.waiting)
            self._said, self._said_at = reason, now
        self.away = True
        self._release()

    def _comes_back(self) -> None:
        """All that waited is written."""
        self.away, self._jobs = False, 0
        for auth_id, count in self.dropped.items():
            text = f"{count} callbacks were dropped: Redis was away for longer than ari_conf can keep them"
            self._report(auth_id, text)
        if self.dropped:
            log.error("callbacks were dropped while redis was away", callbacks=self.dropped.total())
        self.dropped.clear()
        if self._incomplete:
            self._incomplete = False
            self._write_all()

    # Effects.

    def _is_late(self) -> None:
        self._late = True
        self._release()

    def _release(self) -> None:
        """All effects that wait, in their order."""
        for batch in (*self._closed, self._open):
            self._start(batch)

    def _start(self, batch: Batch) -> None:
        effects, batch.effects = batch.effects, []
        for effect in effects:
            self._run(effect)
