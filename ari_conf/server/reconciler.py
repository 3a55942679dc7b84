"""Reconciler: compares the server's state with Asterisk's, and processes the difference.

After each connection to Asterisk, it finds out what happened while no connection was open and, after the first one,
what the previous process left undone. It also runs every minute, since an event or a request may have been lost.

It works in batches, so that the lease is renewed in time even with very many calls, and leaves to the end what can
wait.
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

from ari_conf.ari.client import Client
from ari_conf.core import ids
from ari_conf.core.effects import DestroyBridge, HangUp
from ari_conf.core.engine import Engine
from ari_conf.core.events import Event
from ari_conf.core.expectations import AsteriskState, Expectation
from ari_conf.core.messages import Outputs
from ari_conf.core.reconciliation.batches import (
    ON_THE_WAY_S,
    DeferrableEffect,
    apart,
    compared_part,
    is_still_needed,
    parts,
    split_deferrable,
)
from ari_conf.core.reconciliation.plan import Batch, Why, orphaned_bridges
from ari_conf.errors import REPORT_HINT, AriError, AriNotFound
from ari_conf.server import takeover
from ari_conf.server.effect_runner import EffectRunner

log = structlog.get_logger()

DEFERRED_BATCH = 8
"""Number of deferred effects that run concurrently: half of the connections to Asterisk are left for calls."""
INTERVAL_S = 60.0
UNREPORTED_POLL_S = 5.0
"""Seconds between two searches for what the Stasis application has and the server does not know."""
MAX_HOLD_BACK_S = 10.0
"""Maximum seconds for which a reconciliation after a reconnection keeps deadlines from becoming due."""


class Reconciler:
    def __init__(
        self,
        ari: Client,
        engine: Engine,
        effect_runner: EffectRunner,
        *,
        deliver: Callable[[Event], None],
        on_ari_message: Callable[[dict[str, Any]], None],
        replay: Callable[[Outputs], None],
        abort: Callable[[Iterable[str]], None],
        run: Callable[[DeferrableEffect], None],
        deadlines_allowed: Callable[[], None],
        taken_over: Callable[[], None] = lambda: None,
    ) -> None:
        """Create the reconciler.

        `deliver` receives the missed events, and `on_ari_message` the messages that Asterisk would have sent. `replay`
        receives the effects to repeat, and `abort` the ids of calls and conferences whose reconciliation raised. `run`
        starts an effect that does not change the state. `deadlines_allowed` is called when deadlines may become due
        again, and `taken_over` once what the previous process left undone is processed.
        """
        self._ari = ari
        self._engine = engine
        self._effect_runner = effect_runner
        self._deliver = deliver
        self._on_ari_message = on_ari_message
        self._replay = replay
        self._abort = abort
        self._run_effect = run
        self._deadlines_allowed = deadlines_allowed
        self._taken_over = taken_over
        self._first = True
        """True until a reconciliation has processed what the previous process left undone."""
        self._lock = asyncio.Lock()
        """Lock for one reconciliation at a time: two would repeat the same effects."""
        self._is_processing = False
        self._held_back_until = float("-inf")
        self._deferred: deque[DeferrableEffect] = deque()
        self.arrival_gate = takeover.ArrivalGate(deliver)
        self.done = asyncio.Event()
        """Event that is set once a first reconciliation has succeeded or failed."""

    @property
    def blocks_timers(self) -> bool:
        """Return True while no deadline may become due, because earlier events are not known yet."""
        if self._is_processing or not self.done.is_set():
            return True
        return self.arrival_gate.is_closed and asyncio.get_running_loop().time() < self._held_back_until

    def start(self) -> None:
        """Hold back new calls. To be called as soon as the connection is open, and followed by `reconcile`."""
        self.arrival_gate.start()
        self._held_back_until = asyncio.get_running_loop().time() + MAX_HOLD_BACK_S

    async def reconcile(self) -> None:
        try:
            async with self._lock:
                await self._guarded(self._after_connection())
        finally:
            self.done.set()
            self.arrival_gate.stop()
            self._deadlines_allowed()
        await self._run_deferred()

    async def run(self) -> None:
        """Reconcile every minute. Never returns."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            if not self._ari.connected or self._lock.locked():
                continue
            if self._first:
                self.start()
                await self.reconcile()
            else:
                await self._guarded(self._reconcile_periodically())

    async def watch_unreported_calls(self) -> None:
        """Look for what the Stasis application has and the server does not know. Never returns.

        Asterisk can't report a channel whose number or name is no UTF-8, and its caller would wait forever. And it may
        carry out a request of a dead process only after the takeover has looked for what that process left behind.
        """
        before: set[str] = set()
        while True:
            await asyncio.sleep(UNREPORTED_POLL_S)
            own = await takeover.list_application(self._ari, self._ari.app) if self.done.is_set() else None
            if own is None:
                continue
            channels, bridges = set(own.channel_ids) - self._known(), set(filter(self._is_ownerless, own.bridge_ids))
            # Asterisk may still report channels that have just arrived, and removals may be on their way.
            persistent, before = (channels | bridges) & before, channels | bridges
            if persistent and not self._lock.locked():
                self._remove_leftovers(persistent & channels, persistent & bridges)
                made_by_server = (ids.tap_creator, ids.recorder_of, ids.is_placed)
                calls = {c for c in persistent & channels if not any(of_server(c) for of_server in made_by_server)}
                await self._guarded(self._admit_unknown(calls))

    def _is_ownerless(self, bridge_id: str) -> bool:
        """Return True for a bridge of this server that no conference has, or that is a tap of a dead process."""
        owned = ids.parse(bridge_id)
        if owned is not None and owned.rest == (ids.BRIDGE,):
            return owned.owner not in self._engine.conferences
        return self._effect_runner.is_left_behind(bridge_id)

    def _is_idle_recorder(self, channel_id: str) -> bool:
        """Return True for a snoop channel of a recording that no call has any more."""
        found = ids.recorder_of(channel_id)
        if found is None:
            return False
        call_uuid, recording_id = found
        call = self._engine.calls.get(call_uuid)
        return call is None or recording_id not in call.recordings

    def _remove_leftovers(self, channels: set[str], bridges: set[str]) -> None:
        ownerless = (self._effect_runner.is_left_behind, self._is_idle_recorder, ids.is_placed)
        listening = sorted(c for c in channels if any(is_ownerless(c) for is_ownerless in ownerless))
        effects: Outputs = [*map(HangUp, listening), *map(DestroyBridge, sorted(bridges))]
        if effects:
            log.warning("leftovers found", channels=listening, bridges=sorted(bridges))
            self._try(lambda: self._replay(effects), "leaving them in Asterisk")

    async def _admit_unknown(self, unknown: set[str]) -> None:
        raws, undescribed = await takeover.request_each_channel(self._ari, sorted(unknown))
        self._refuse(set(undescribed) - self._known())
        calls = [
            raw for raw in raws if takeover.is_call_of(self._ari.app, msgspec.json.decode(raw, type=takeover.Channel))
        ]
        for message in takeover.synthetic_stasis_starts(map(msgspec.json.decode, calls)):
            await self._admit_unreported(message)

    def _refuse(self, undescribed: Iterable[str]) -> None:
        for channel_id in sorted(undescribed):
            log.warning(
                "call rejected",
                channel_id=channel_id,
                reason="its number, name or Call-ID is not UTF-8, so Asterisk can't report it",
            )
            self._replay([HangUp(channel_id, "rejected")])

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except AriError as error:
            # The next connection or the next minute reconciles again, as a takeover if none has succeeded so far.
            log.warning("reconciliation failed", reason=str(error))
        except Exception:
            log.exception("reconciliation raised", hint=REPORT_HINT)

    async def _after_connection(self) -> None:
        first, app = self._first, self._ari.app
        before = await takeover.idle_expectations(self._engine, self._effect_runner.is_busy)
        seen = await takeover.take_snapshot(self._ari, before, app, self._known())
        if first:
            self._effect_runner.remove_leftovers(seen.state.channels)
        own_bridges = await takeover.list_own_bridges(self._ari, app, seen.bridges_with_name) if first else frozenset()
        await self._process_differences(before, seen.state, why="takeover" if first else "connection")
        if first:
            effects: Outputs = [
                DestroyBridge(bridge_id)
                for bridge_id in orphaned_bridges(self._engine, seen.state, own_bridges.__contains__)
            ]
            self._try(lambda: self._replay(effects), "leaving orphaned bridges in Asterisk")
        self._first = False
        self._taken_over()
        self._refuse(seen.undescribed)
        for message in takeover.synthetic_stasis_starts(seen.arrived):
            self._on_ari_message(message)
        log.info("reconciliation completed", calls=len(self._engine.calls), first=first)

    async def _reconcile_periodically(self) -> None:
        """Reconcile without blocking: what still differs after ON_THE_WAY_S, although events are received, was lost."""
        before = await takeover.idle_expectations(self._engine, self._effect_runner.is_busy)
        seen = await takeover.take_snapshot(self._ari, before, self._ari.app, self._known(), patient=False)
        await asyncio.sleep(ON_THE_WAY_S)
        if self._lock.locked():
            return  # a new connection is being reconciled
        async with self._lock:
            await self._process_differences(before, seen.state, why="timer")
        self._refuse(seen.undescribed)
        for message in takeover.synthetic_stasis_starts(seen.arrived):
            await self._admit_unreported(message)

    async def _admit_unreported(self, arrival: dict[str, Any]) -> None:
        channel_id = arrival["channel"]["id"]
        if channel_id in self._known():
            return
        with contextlib.suppress(AriNotFound):  # the channel no longer exists
            await self._ari.request("GET", f"/channels/{quote(channel_id, safe='')}")
            if channel_id not in self._known():
                log.warning("unreported call found", channel_id=channel_id)
                self._on_ari_message(arrival)

    def _known(self) -> set[str]:
        return {call.channel_id for call in self._engine.calls.values()}

    async def _process_differences(
        self, before: dict[str, list[Expectation]], asterisk_state: AsteriskState, *, why: Why
    ) -> None:
        def process_batch(part: Batch) -> None:
            found = compared_part(part, before, asterisk_state, why=why, busy=self._effect_runner.is_busy)
            if why == "timer" and (found.repeat or found.missed_events):
                corrections = [type(each).__name__ for each in (*found.repeat, *found.missed_events)]
                log.warning("state difference corrected", corrections=corrections)
            at_once, later = split_deferrable(self._engine, found.repeat)
            if at_once:
                self._replay(at_once)
            for event in found.missed_events:
                self._deliver(event)
            self._deferred += later

        self._is_processing = True
        try:
            for part in parts(self._engine):
                if not self._try(partial(process_batch, part), "reconciling each call and conference separately"):
                    for single in apart(part):
                        owner_ids = (*single.calls, *single.conferences)
                        if not self._try(partial(process_batch, single), "ending them", ids=owner_ids):
                            self._try(partial(self._abort, owner_ids), "leaving them unchanged", ids=owner_ids)
                await asyncio.sleep(0)
        finally:
            self._is_processing = False
            self._deadlines_allowed()

    def _try(self, work: Callable[[], None], action: str, **fields: Any) -> bool:
        try:
            work()
        except Exception:
            log.exception("reconciliation raised", action=action, hint=REPORT_HINT, **fields)
            return False
        return True

    async def _run_deferred(self) -> None:
        """Run the deferred effects a few at a time, so that new calls do not wait for all of them."""
        while self._deferred:
            some = [self._deferred.popleft() for _ in range(min(DEFERRED_BATCH, len(self._deferred)))]
            wanted = [effect for effect in some if is_still_needed(self._engine, effect)]
            for effect in wanted:
                self._run_effect(effect)
            await self._effect_runner.wait_for_channels(effect.channel_id for effect in wanted)
