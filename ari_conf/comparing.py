"""After each connection to Asterisk: what happened while nobody listened; and at the first one what the process before
us left undone. In parts, so that of very many calls the lease is renewed in time, and what can wait last."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import structlog

from ari_conf import takeover
from ari_conf.ari.client import Client
from ari_conf.core.directory import Directory
from ari_conf.core.events import Event
from ari_conf.core.internal import Out
from ari_conf.core.reconcile import Compared
from ari_conf.core.reconcile_parts import Likely, compared_in_parts, put_off, still_wanted
from ari_conf.errors import AriError
from ari_conf.interpreter import Interpreter

log = structlog.get_logger()

LATER_AT_ONCE = 8
"""Of the connections to Asterisk half are left for calls."""


class Comparing:
    def __init__(
        self,
        ari: Client,
        directory: Directory,
        interpreter: Interpreter,
        *,
        deliver: Callable[[Event], None],
        heard: Callable[[dict[str, Any]], None],
        again: Callable[[Out], None],
        run: Callable[[Likely], None],
        worked_off: Callable[[], None],
    ) -> None:
        """`heard` is told what Asterisk would have told; `again`, what is to be done again; `run` starts an effect that
        changes nothing of the state; `worked_off` is told when time may pass again."""
        self._ari = ari
        self._directory = directory
        self._interpreter = interpreter
        self._deliver = deliver
        self._heard = heard
        self._do_again = again
        self._run = run
        self._worked_off = worked_off
        self._first = True
        """Nothing of what Asterisk has has been compared yet."""
        self._working_off = 0
        self._later: deque[Likely] = deque()
        self.arriving = takeover.Arriving(deliver)
        self.done = asyncio.Event()
        """Once, at least."""

    @property
    def holds_time(self) -> bool:
        """What is due would be done before it is known what happened earlier."""
        return self._working_off > 0

    def begin(self) -> None:
        """At once when the connection stands; then `compare`."""
        self.arriving.begin()

    async def compare(self) -> None:
        try:
            await self._find_out(self._first)
        except AriError as error:
            # The connection that comes next is compared, and as the first one if this was.
            log.warning("not compared with asterisk", reason=str(error))
        except Exception:
            log.exception("comparing with asterisk broke: this is a defect of ari_conf, please report it")
        finally:
            self.arriving.end()
        await self._do_later()

    async def _find_out(self, first: bool) -> None:
        app, busy = self._ari.app, self._interpreter.busy
        known = {call.channel_id for call in self._directory.calls.values()}
        before = await takeover.expected(self._directory, busy)
        seen = await takeover.look(self._ari, before, app, known)
        if first:
            self._interpreter.sweep(seen.there.channels)
        ours = await takeover.ours(self._ari, app, seen.named) if first else frozenset()
        self._first = False
        self._working_off += 1
        try:
            for found in compared_in_parts(
                self._directory,
                before,
                seen.there,
                why="takeover" if first else "connection",
                ours=ours.__contains__,
                busy=busy,
            ):
                self._work_off(found)
                await asyncio.sleep(0)
        finally:
            self._working_off -= 1
            self._worked_off()
        for message in takeover.arrivals(seen.arrived):
            self._heard(message)
        self.done.set()
        log.info("compared with asterisk", calls=len(self._directory.calls), first=first)

    def _work_off(self, found: Compared) -> None:
        at_once, later = put_off(self._directory, found.again)
        if at_once:
            self._do_again(at_once)
        for event in found.missed:
            self._deliver(event)
        self._later += later

    async def _do_later(self) -> None:
        """A few at a time, since new calls are not to wait for all of it."""
        while self._later:
            some = [self._later.popleft() for _ in range(min(LATER_AT_ONCE, len(self._later)))]
            wanted = [effect for effect in some if still_wanted(self._directory, effect)]
            for effect in wanted:
                self._run(effect)
            await self._interpreter.done(effect.channel_id for effect in wanted)
