"""Writes again what lives, and takes out what does not: when Redis has forgotten, or keeps what is nobody's any more.

First what lives, then what is too much: whoever dies in between leaves nothing out. In parts, so that neither we nor
Redis are busy with it for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from itertools import islice

import structlog

from ari_conf.batch import Step
from ari_conf.core.directory import Directory
from ari_conf.errors import StoreUnavailable
from ari_conf.names import Names
from ari_conf.steps import Steps
from ari_conf.store import Store
from ari_conf.takeover import NEXT_MEMBER_ID
from ari_conf.writer import Writer

log = structlog.get_logger()

WRITTEN_AT_ONCE = 100
AGAIN_S = 0.5


class Rewriting:
    def __init__(
        self,
        directory: Directory,
        steps: Steps,
        store: Store,
        writer: Writer,
        names: Names,
        now_ms: Callable[[], int],
    ) -> None:
        self._directory, self._steps, self._store, self._writer = directory, steps, store, writer
        self._names = names
        self._now_ms = now_ms
        self._wanted = asyncio.Event()
        self._all = False
        """Not only is something too much: what lives is missing."""

    def write_all(self) -> None:
        """Redis came back empty, or as it was earlier: what lives is in memory."""
        self._all = True
        self._wanted.set()

    def clean(self) -> None:
        """Redis has what lives, and perhaps more: what a process before could not end, or nobody could read."""
        self._wanted.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if self._all:
                self._all = False
                await self._write_living()
            try:
                await self._take_out()
            except StoreUnavailable as error:
                log.warning("not compared with what redis has: again soon", reason=str(error))
                self._wanted.set()
                await asyncio.sleep(AGAIN_S)

    async def _write_living(self) -> None:
        ids = iter((*self._directory.calls, *self._directory.conferences))
        while part := list(islice(ids, WRITTEN_AT_ONCE)):
            self._writer.put(self._steps.of_living(part, self._now_ms()), [])
            await self._writer.drained()
        await self._names.claim_in_parts()

    async def _take_out(self) -> None:
        await self._writer.drained()
        gone = 0
        async for ids in self._store.ids():
            if strangers := [id for id in ids if not self._lives(id)]:
                gone += len(strangers)
                step = Step(self._now_ms(), also=[partial(self._store.forget, ids=strangers)])
                self._writer.put(step, [])
                await self._writer.drained()
        async for names in self._store.names_held():
            if released := [name for name in names if not self._holds(name.conference_id)]:
                gone += len(released)
                self._writer.put(Step(self._now_ms(), released=released), [])
                await self._writer.drained()
        if gone:
            log.info("taken out of redis, since it lives no more", count=gone)

    def _lives(self, id: bytes) -> bool:
        key = id.decode(errors="replace")
        return key == NEXT_MEMBER_ID or key in self._directory.calls or key in self._directory.conferences

    def _holds(self, conference_id: str) -> bool:
        conference = self._directory.conferences.get(conference_id)
        return conference is not None and conference.claim != "released"
