"""Compares our state with what Asterisk has, and works off the difference.

At each connection: what happened while nobody listened, and at the first one what the process before us left undone.
And each minute, since an event or a request may have been lost.

In parts, so that the lease is renewed in time although there are very many calls. What can wait is done last.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any
from urllib.parse import quote

import msgspec
import structlog

from ari_conf import takeover
from ari_conf.ari.client import Client
from ari_conf.core.directory import Directory
from ari_conf.core.effects import DestroyBridge, HangUp
from ari_conf.core.events import Event
from ari_conf.core.internal import Out
from ari_conf.core.reconcile import Expected, Part, There, Why, strangers
from ari_conf.core.reconcile_parts import (
    ON_THE_WAY_S,
    Likely,
    apart,
    compared_part,
    parts,
    put_off,
    still_wanted,
)
from ari_conf.errors import AriError, AriNotFound
from ari_conf.interpreter import Interpreter

log = structlog.get_logger()

LATER_AT_ONCE = 8
"""Of the connections to Asterisk half are left for calls."""
EVERY_S = 60.0
STRANGERS_S = 5.0
"""How often it is looked for channels of which Asterisk did not tell that they came."""
HELD_S = 10.0
"""For so long nothing becomes due while it is found out, after a reconnection, what happened meanwhile."""


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
        given_up: Callable[[Iterable[str]], None],
        run: Callable[[Likely], None],
        worked_off: Callable[[], None],
    ) -> None:
        """`heard` is told what Asterisk would have told; `again`, what is to be done again; `given_up`, the calls and
        conferences whose comparison broke; `run` starts an effect that changes nothing of the state; `worked_off` is
        told when time may pass again."""
        self._ari = ari
        self._directory = directory
        self._interpreter = interpreter
        self._deliver = deliver
        self._heard = heard
        self._do_again = again
        self._give_up = given_up
        self._run = run
        self._worked_off = worked_off
        self._first = True
        """It has not been worked off yet what the process before us left."""
        self._turn = asyncio.Lock()
        """One comparison at a time: two would do the same again."""
        self._working_off = False
        self._held_until = float("-inf")
        self._later: deque[Likely] = deque()
        self.arriving = takeover.Arriving(deliver)
        self.done = asyncio.Event()
        """There was one comparison, at least."""

    @property
    def holds_time(self) -> bool:
        """What is due would be done before it is known what happened earlier."""
        if self._working_off or not self.done.is_set():
            return True
        return self.arriving.waits and asyncio.get_running_loop().time() < self._held_until

    def begin(self) -> None:
        """At once when the connection stands; then `compare`."""
        self.arriving.begin()
        self._held_until = asyncio.get_running_loop().time() + HELD_S

    async def compare(self) -> None:
        try:
            async with self._turn:
                await self._guarded(self._after_connection())
        finally:
            self.done.set()
            self.arriving.end()
            self._worked_off()
        await self._do_later()

    async def keep(self) -> None:
        """Compares each minute. Never returns."""
        while True:
            await asyncio.sleep(EVERY_S)
            if not self._ari.connected or self._turn.locked():
                continue
            if self._first:
                self.begin()
                await self.compare()
            else:
                await self._guarded(self._by_the_clock())

    async def look_for_strangers(self) -> None:
        """Channels that are in the application, and of whose coming Asterisk did not tell: it can't if their number or
        name is no UTF-8, and their callers would wait forever. Never returns."""
        before: set[str] = set()
        while True:
            await asyncio.sleep(STRANGERS_S)
            there = await takeover.of_application(self._ari, self._ari.app) if self.done.is_set() else None
            strange = set(there or ()) - self._known()
            # Those that have just come may still be told of.
            again, before = strange & before, strange
            if again and not self._turn.locked():
                await self._guarded(self._meet(again))

    async def _meet(self, strange: set[str]) -> None:
        raws, untold = await takeover.one_by_one(self._ari, sorted(strange))
        self._refuse(set(untold) - self._known())
        channels = [msgspec.json.decode(raw) for raw in raws]
        arrived = takeover.arrivals(c for c in channels if takeover.is_for(self._ari.app, c))
        for message in arrived:
            await self._not_told_of(message)

    def _refuse(self, untold: Iterable[str]) -> None:
        for channel_id in sorted(untold):
            log.warning(
                "a call is refused: its number, its caller or its Call-ID is no UTF-8, and asterisk can't tell of it",
                channel_id=channel_id,
            )
            self._do_again([HangUp(channel_id, "rejected")])

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except AriError as error:
            # The next connection is compared, or it is done in a minute; as the first one if this was the first.
            log.warning("not compared with asterisk", reason=str(error))
        except Exception:
            log.exception("comparing with asterisk broke: this is a defect of ari_conf, please report it")

    async def _after_connection(self) -> None:
        first, app = self._first, self._ari.app
        before = await takeover.expected(self._directory, self._interpreter.busy)
        seen = await takeover.look(self._ari, before, app, self._known())
        if first:
            self._interpreter.sweep(seen.there.channels)
        ours = await takeover.ours(self._ari, app, seen.named) if first else frozenset()
        await self._work_off(before, seen.there, why="takeover" if first else "connection")
        if first:
            out: Out = [
                DestroyBridge(bridge_id) for bridge_id in strangers(self._directory, seen.there, ours.__contains__)
            ]
            self._tried(lambda: self._do_again(out), "bridges that nobody has are left in asterisk")
        self._first = False
        self._refuse(seen.untold)
        for message in takeover.arrivals(seen.arrived):
            self._heard(message)
        log.info("compared with asterisk", calls=len(self._directory.calls), first=first)

    async def _by_the_clock(self) -> None:
        """Holds nothing up: only what is still different after a while, although events are heard, was lost."""
        before = await takeover.expected(self._directory, self._interpreter.busy)
        seen = await takeover.look(self._ari, before, self._ari.app, self._known(), patient=False)
        await asyncio.sleep(ON_THE_WAY_S)
        if self._turn.locked():
            return  # a connection came meanwhile, and is compared
        async with self._turn:
            await self._work_off(before, seen.there, why="timer")
        self._refuse(seen.untold)
        for message in takeover.arrivals(seen.arrived):
            await self._not_told_of(message)

    async def _not_told_of(self, arrival: dict[str, Any]) -> None:
        channel_id = arrival["channel"]["id"]
        if channel_id in self._known():
            return
        with contextlib.suppress(AriNotFound):  # it has come and gone meanwhile
            await self._ari.request("GET", f"/channels/{quote(channel_id, safe='')}")
            if channel_id not in self._known():
                log.warning("asterisk has a call of which it did not tell", channel_id=channel_id)
                self._heard(arrival)

    def _known(self) -> set[str]:
        return {call.channel_id for call in self._directory.calls.values()}

    async def _work_off(self, before: dict[str, list[Expected]], there: There, *, why: Why) -> None:
        def work_off(part: Part) -> None:
            found = compared_part(part, before, there, why=why, busy=self._interpreter.busy)
            if why == "timer" and (found.again or found.missed):
                told = [type(each).__name__ for each in (*found.again, *found.missed)]
                log.warning("asterisk has something else than it told: put right", told=told)
            at_once, later = put_off(self._directory, found.again)
            if at_once:
                self._do_again(at_once)
            for event in found.missed:
                self._deliver(event)
            self._later += later

        self._working_off = True
        try:
            for part in parts(self._directory):
                if not self._tried(partial(work_off, part), "each of these calls and conferences is compared alone"):
                    for one in apart(part):
                        whose = (*one.calls, *one.conferences)
                        if not self._tried(partial(work_off, one), "it is given up", ids=whose):
                            self._tried(partial(self._give_up, whose), "it is left as it is", ids=whose)
                await asyncio.sleep(0)
        finally:
            self._working_off = False
            self._worked_off()

    def _tried(self, work: Callable[[], None], otherwise: str, **fields: Any) -> bool:
        try:
            work()
        except Exception:
            event = "comparing with asterisk broke: this is a defect of ari_conf, please report it"
            log.exception(event, so=otherwise, **fields)
            return False
        return True

    async def _do_later(self) -> None:
        """A few at a time, since new calls are not to wait for all of it."""
        while self._later:
            some = [self._later.popleft() for _ in range(min(LATER_AT_ONCE, len(self._later)))]
            wanted = [effect for effect in some if still_wanted(self._directory, effect)]
            for effect in wanted:
                self._run(effect)
            await self._interpreter.done(effect.channel_id for effect in wanted)
