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

WRITE_BATCH = 100
RETRY_DELAY_S = 0.5


class StateRewriter:
    def __init__(
        self,
        engine: Engine,
        step_builder: StepBuilder,
        store: StateStore,
        step_writer: StepWriter,
        name_claims: NameClaims,
        now_ms: Callable[[], int],
    ) -> None:
        self._engine, self._step_builder, self._store, self._step_writer = engine, step_builder, store, step_writer
        self._name_claims = name_claims
        self._now_ms = now_ms
        self._requested = asyncio.Event()
        self._is_all_requested = False
        """True if live state is missing in Redis; otherwise state only has to be removed."""

    def write_all(self) -> None:
        """Request a rewrite of all live state from memory: Redis came back empty, or from an older copy."""
        self._is_all_requested = True
        self._requested.set()

    def remove_stale(self) -> None:
        """Request the removal of state that a previous process could not end, or that could not be read."""
        self._requested.set()

    async def run(self) -> None:
        """Carry out the requests. Never returns."""
        while True:
            await self._requested.wait()
            self._requested.clear()
            if self._is_all_requested:
                self._is_all_requested = False
                await self._write_live()
            try:
                await self._remove_stale()
            except StoreUnavailable as error:
                log.warning("state cleanup failed", reason=str(error), action="retrying")
                self._requested.set()
                await asyncio.sleep(RETRY_DELAY_S)

    async def _write_live(self) -> None:
        ids = iter((*self._engine.calls, *self._engine.conferences))
        while batch := list(islice(ids, WRITE_BATCH)):
            self._step_writer.submit(self._step_builder.build_rewrite(batch, self._now_ms()), [])
            await self._step_writer.wait_until_drained()
        await self._name_claims.claim_in_batches()

    async def _remove_stale(self) -> None:
        await self._step_writer.wait_until_drained()
        removed = 0
        async for ids in self._store.ids():
            if stale := [id for id in ids if not self._is_live(id)]:
                removed += len(stale)
                step = Step(self._now_ms(), extra_commands=[partial(self._store.forget, ids=stale)])
                self._step_writer.submit(step, [])
                await self._step_writer.wait_until_drained()
        async for names in self._store.names_held():
            if released := [name for name in names if not self._holds_name(name.conference_id)]:
                removed += len(released)
                self._step_writer.submit(Step(self._now_ms(), released=released), [])
                await self._step_writer.wait_until_drained()
        if removed:
            log.info("stale state removed", count=removed)

    def _is_live(self, id: bytes) -> bool:
        key = id.decode(errors="replace")
        return key == NEXT_MEMBER_ID or key in self._engine.calls or key in self._engine.conferences

    def _holds_name(self, conference_id: str) -> bool:
        conference = self._engine.conferences.get(conference_id)
        return conference is not None and conference.claim is not ClaimState.RELEASED
