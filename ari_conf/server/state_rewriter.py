"""State rewriter: writes all live state again when Redis has forgotten it, and removes state that is no longer live.

It writes before it removes, so that no live state is missing if the process dies in between. It works in batches, so
that neither the server nor Redis is busy with it for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from itertools import islice

import structlog

from ari_conf.core.conferences.conference_state import ClaimState
from ari_conf.core.engine import Engine
from ari_conf.errors import StoreUnavailable
from ari_conf.server.name_claims import NameClaims
from ari_conf.server.step_builder import StepBuilder
from ari_conf.server.step_writer import StepWriter
from ari_conf.server.takeover import NEXT_MEMBER_ID
from ari_conf.store.state_store import StateStore
from ari_conf.store.step_batch import Step

log = structlog.get_logger()

WRITTEN_AT_ONCE = 100
AGAIN_S = 0.5


class StateRewriter:
    def __init__(
        self,
        engine: Engine,
        steps: StepBuilder,
        store: StateStore,
        writer: StepWriter,
        names: NameClaims,
        now_ms: Callable[[], int],
    ) -> None:
        self._engine, self._steps, self._store, self._writer = engine, steps, store, writer
        self._names = names
        self._now_ms = now_ms
        self._wanted = asyncio.Event()
        self._all = False
        """True if live state is missing in Redis; otherwise state only has to be removed."""

    def write_all(self) -> None:
        """Request a rewrite of all live state from memory: Redis came back empty, or from an older copy."""
        self._all = True
        self._wanted.set()

    def clean(self) -> None:
        """Request the removal of state that a previous process could not end, or that could not be read."""
        self._wanted.set()

    async def run(self) -> None:
        """Carry out the requests. Never returns."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if self._all:
                self._all = False
                await self._write_living()
            try:
                await self._take_out()
            except StoreUnavailable as error:
                log.warning("state cleanup failed", reason=str(error), action="retrying")
                self._wanted.set()
                await asyncio.sleep(AGAIN_S)

    async def _write_living(self) -> None:
        ids = iter((*self._engine.calls, *self._engine.conferences))
        while part := list(islice(ids, WRITTEN_AT_ONCE)):
            self._writer.submit(self._steps.of_living(part, self._now_ms()), [])
            await self._writer.wait_until_drained()
        await self._names.claim_in_batches()

    async def _take_out(self) -> None:
        await self._writer.wait_until_drained()
        gone = 0
        async for ids in self._store.ids():
            if strangers := [id for id in ids if not self._lives(id)]:
                gone += len(strangers)
                step = Step(self._now_ms(), extra_commands=[partial(self._store.forget, ids=strangers)])
                self._writer.submit(step, [])
                await self._writer.wait_until_drained()
        async for names in self._store.names_held():
            if released := [name for name in names if not self._holds(name.conference_id)]:
                gone += len(released)
                self._writer.submit(Step(self._now_ms(), released=released), [])
                await self._writer.wait_until_drained()
        if gone:
            log.info("stale state removed", count=gone)

    def _lives(self, id: bytes) -> bool:
        key = id.decode(errors="replace")
        return key == NEXT_MEMBER_ID or key in self._engine.calls or key in self._engine.conferences

    def _holds(self, conference_id: str) -> bool:
        conference = self._engine.conferences.get(conference_id)
        return conference is not None and conference.claim is not ClaimState.RELEASED
