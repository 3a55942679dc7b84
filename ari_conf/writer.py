"""Written before done: a step's effects run once the step is in Redis.

Steps that come while a write is under way are written together in the next one, and one that nothing waits for lingers
a little, so that it goes with the next. While Redis can't be reached, effects run at once (conferences go on from
memory) and the steps wait, in their order, until it is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from ari_conf.core.effects import Effect, IdentifyCall, PrepareSound, WarmSounds
from ari_conf.errors import LeaseLost, StoreUnavailable
from ari_conf.store import Step

log = structlog.get_logger()

PATIENCE_S = 0.25
"""A write that takes longer doesn't hold up the calls any more."""
TRY_AGAIN_S = 0.5
LINGER_S = 0.25
"""For which a change of state alone may wait for others: while many talk that is most of them. Should we be killed
meanwhile, Asterisk tells our successor the same."""
ONLY_ASK = (IdentifyCall, PrepareSound, WarmSounds)
"""These change nothing, anywhere: done before their step is written they can't be wrong."""


class Steps(Protocol):
    async def write(self, steps: Sequence[Step]) -> None: ...


class Writer:
    def __init__(
        self,
        store: Steps,
        run: Callable[[Effect], None],
        written: Callable[[], None],
        lost: Callable[[], None] = lambda: None,
        changed: Callable[[], Step | None] = lambda: None,
    ) -> None:
        """`run` starts an effect; `written` is told after each write that had callbacks in it; `lost`, that another
        process has taken over; `changed` is asked before each write what has changed beside the steps."""
        self._store = store
        self._run = run
        self._written = written
        self._lost = lost
        self._changed = changed
        self._steps: list[Step] = []
        self._effects: list[Effect] = []
        """They wait for the next write."""
        self._due: list[Effect] = []
        """They wait for the one that is under way."""
        self._wanted = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._lingering: asyncio.TimerHandle | None = None
        self.away = False
        """Redis can't be reached."""

    @property
    def waiting(self) -> int:
        """Steps that are not written yet."""
        return len(self._steps)

    def put(self, step: Step, effects: Sequence[Effect]) -> None:
        waits = [effect for effect in effects if not isinstance(effect, ONLY_ASK)]
        self._steps.append(step)
        self._effects += waits
        self._idle.clear()
        if waits or step.more:
            self._write_now()
        else:
            self.linger()
        for effect in effects:
            if isinstance(effect, ONLY_ASK):
                self._run(effect)
        if self.away:
            self._release()

    def linger(self) -> None:
        """Something has changed, and nothing else: soon, or with the next step, it is written."""
        self._idle.clear()
        if self._lingering is None:
            self._lingering = asyncio.get_running_loop().call_later(LINGER_S, self._write_now)

    def _write_now(self) -> None:
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
            self._steps.clear()
            self._effects.clear()
            self._due.clear()
            self.away = False
            self._lost()

    async def drained(self) -> None:
        """Until all that was put is written."""
        if self._lingering is not None:
            self._write_now()
        await self._idle.wait()

    async def _write(self) -> None:
        while True:
            if (beside := self._changed()) is not None:
                self._steps.append(beside)
            if not self._steps:
                break
            steps, self._due, self._effects = self._steps[:], self._effects, []
            patience = asyncio.get_running_loop().call_later(PATIENCE_S, self._release_due)
            try:
                await self._store.write(steps)
            except StoreUnavailable as error:
                if not self.away:
                    log.error("redis away: conferences go on, what is to be written waits", reason=str(error))
                self.away = True
                self._release_due()
                self._release()
                await asyncio.sleep(TRY_AGAIN_S)
                continue
            finally:
                patience.cancel()
            self._release_due()
            if self.away:
                log.info("redis is back", steps=len(steps))
            self.away = False
            del self._steps[: len(steps)]
            if any(step.callbacks for step in steps):
                self._written()
        self._idle.set()

    def _release_due(self) -> None:
        due, self._due = self._due, []
        for effect in due:
            self._run(effect)

    def _release(self) -> None:
        effects, self._effects = self._effects, []
        for effect in effects:
            self._run(effect)
