"""Simulated callers: the calls that they make, the length of each, and their actions in the conference."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import aiohttp
import numpy as np

from demo import audio_analysis
from demo.phone import CallFailed, Phone, now_ms
from tests.chaos.hearing import BEEP_HZ, VOICES
from tests.chaos.seen import Counts, Leg, Life

OF_ONE = 4
"""The number of callers in one conference."""
API_WITHIN_S = 30.0
"""Seconds within which the API accepts a command, whichever component died in the meantime."""
PRESSED_MS = 300.0
"""Milliseconds around a digit in which the caller is not heard: a phone sends the digit in place of its audio."""

ROLES = ("plain", "recorded", "waiting", "muted", "two", "digits", "beep")
"""The scenarios of the conferences, repeated from the first if there are more conferences.

"beep": no conference, but a document that listens to each caller until the beep, again and again.
"""
BEEP_MS, BEEPS_WITHIN_S = 400, 8.0
BEEP_TOLD_MS = 3000.0
"""Milliseconds after a beep's end within which the next document is requested."""


@dataclass
class Room:
    """A conference name; several conferences may use it in sequence."""

    name: str
    role: str
    number: int = 1
    hosted: bool = False
    legs: list[Leg] = field(default_factory=list)
    """The calls of callers who are in the conference or wait for it."""


@dataclass(frozen=True)
class Where:
    """Everything that the callers, which run in a process of their own, know about the system."""

    count: int
    seed: int
    sip_address: str
    api: str
    """The URL up to the account's id."""
    account: str
    token: str = field(repr=False)
    documents: Mapping[str, str] = field(default_factory=dict)
    """Document URLs by room and role, such as "room 2 host"."""


def room_of(caller: int) -> str:
    return f"room {caller // OF_ONE}"


def role_of(caller: int) -> str:
    return ROLES[caller // OF_ONE % len(ROLES)]


def number(caller: int) -> str:
    """Return the caller's phone number."""
    return f"1555{caller:04}"


class Callers:
    def __init__(self, where: Where, phones: Sequence[Phone]) -> None:
        self._where, self._phones, self._seed = where, phones, where.seed
        self.lives = [Life()]
        self.legs: list[Leg] = []
        self.counts = Counts()
        self.over = asyncio.Event()

    async def run(self) -> None:
        """Run until `over` is set and all callers have hung up."""
        timeout = aiohttp.ClientTimeout(total=6)
        login = aiohttp.BasicAuth(self._where.account, self._where.token)
        async with aiohttp.ClientSession(auth=login, timeout=timeout) as self._api, asyncio.TaskGroup() as group:
            for at in range(0, len(self._phones), OF_ONE):
                room = Room(room_of(at), role_of(at))
                for caller in range(at, min(at + OF_ONE, len(self._phones))):
                    group.create_task(self._caller(caller, room))
                if room.role == "muted":
                    group.create_task(self._mutes(room))

    def _caller(self, caller: int, room: Room) -> Coroutine[Any, Any, None]:
        dice = random.Random(f"{self._seed} {caller}")
        place = caller % OF_ONE
        if room.role == "beep":
            return self._is_listened_to(caller, room, dice)
        if place == 0 and room.role == "waiting":
            return self._host(caller, room, dice)
        if place == 0 or (place == 1 and room.role == "two"):
            return self._comes_and_goes(caller, room, dice)
        return self._stays(caller, room)

    # Actions of the callers.

    async def _stays(self, caller: int, room: Room) -> None:
        while not self.over.is_set():
            if leg := await self._dial(caller, room):
                await self._until(leg, caller, room, None)

    async def _comes_and_goes(self, caller: int, room: Room, dice: random.Random) -> None:
        while not self.over.is_set():
            if leg := await self._dial(caller, room):
                stays = asyncio.create_task(asyncio.sleep(dice.uniform(4, 15)))
                if room.role == "digits":
                    await self._presses(leg, caller, dice)
                await self._until(leg, caller, room, stays)
            await self._sleep(dice.uniform(0.5, 4))

    async def _host(self, caller: int, room: Room, dice: random.Random) -> None:
        """Call as the host: the others wait until the host enters, and must all leave when the host leaves."""
        while not self.over.is_set():
            await self._sleep(dice.uniform(4, 8))
            if self.over.is_set():
                return
            if leg := await self._dial(caller, room, host=True):
                await self._until(leg, caller, room, asyncio.create_task(asyncio.sleep(dice.uniform(8, 20))))

    async def _is_listened_to(self, caller: int, room: Room, dice: random.Random) -> None:
        while not self.over.is_set():
            if leg := await self._dial(caller, room):
                self.legs.remove(leg)  # no other caller should hear this one
                beeping = asyncio.create_task(self._beeps(self._phones[caller], dice))
                await self._until(leg, caller, room, None)
                beeping.cancel()
                # A caller who hangs up right after a beep does not learn if it was heard.
                self.counts.beeps = [at for at in self.counts.beeps if at < leg.to_ms - BEEP_TOLD_MS]

    async def _beeps(self, phone: Phone, dice: random.Random) -> None:
        """Beep when asked to, or after a while, since a beep or the request for it may have been lost."""
        at = np.arange(BEEP_MS * 8) / 8000
        beep = np.round(8000 * np.sin(2 * np.pi * 1000 * at)).astype(np.int16)
        while True:
            asked = await self._hears_beep(phone, now_ms())
            await asyncio.sleep(dice.uniform(0.8, 1.5))
            sound = phone.say(beep)
            while sound.ended_ms is None:  # noqa: ASYNC110  the phones' thread sends no signal
                await asyncio.sleep(0.02)
            if asked:
                self.counts.beeps.append(sound.ended_ms)

    async def _hears_beep(self, phone: Phone, since_ms: float) -> bool:
        while now_ms() < since_ms + BEEPS_WITHIN_S * 1000:
            if audio_analysis.intervals_of(phone.heard.since(since_ms), BEEP_HZ):
                return True
            await asyncio.sleep(0.05)
        return False

    async def _presses(self, leg: Leg, caller: int, dice: random.Random) -> None:
        await self._sleep(dice.uniform(1, 2))
        phone = self._phones[caller]
        if phone.state == "answered" and not self._life.died.is_set():
            start = now_ms()
            leg.quiet.append((start - 40, start + PRESSED_MS))
            with contextlib.suppress(RuntimeError):
                await phone.press("5")
                self.counts.pressed.append(start)

    async def _mutes(self, room: Room) -> None:
        """Mute a remaining member through the API, again and again."""
        dice = random.Random(f"{self._seed} mutes {room.name}")
        while not self.over.is_set():
            await self._sleep(dice.uniform(3, 6))
            inside = [leg for leg in room.legs if leg.to_ms == inf]
            if not inside or self.over.is_set():
                continue
            leg = dice.choice(inside)
            at = len(leg.quiet)
            leg.quiet.append((now_ms(), inf))
            if not await self._command("POST", room, leg):
                continue
            muted_ms = now_ms()
            await self._sleep(dice.uniform(2, 5))
            leg.muted.append((muted_ms, now_ms()))
            await self._command("DELETE", room, leg)
            leg.quiet[at] = (leg.quiet[at][0], now_ms())
            self.counts.mutes += 1

    async def _command(self, method: str, room: Room, leg: Leg) -> bool:
        """Repeat the command until the API accepts it: while a component is unreachable, the API refuses.

        Return False if the caller has left in the meantime.
        """
        began, last = now_ms(), ""
        base = f"{self._where.api}/{self._where.account}/Conference/{room.name}/"
        while now_ms() - began < API_WITHIN_S * 1000:
            if leg.to_ms != inf:
                return False
            try:
                member = await self._member(base, leg)
                if member is not None:
                    async with self._api.request(method, f"{base}Member/{member}/Mute/") as answer:
                        if answer.status // 100 == 2:
                            return True
                        last = f"{answer.status}: {(await answer.text())[:200]}"
                else:
                    last = "the caller is not among the members"
            except (aiohttp.ClientError, OSError) as error:
                last = repr(error)
            await asyncio.sleep(0.2)
        if leg.to_ms == inf:
            self.counts.commands.append((began, f"{method} Mute of caller {leg.caller} was never taken: {last}"))
        return False

    async def _member(self, base: str, leg: Leg) -> str | None:
        async with self._api.get(base) as answer:
            if answer.status != 200:
                return None
            members = (await answer.json())["members"]
        return next((str(one["member_id"]) for one in members if one["from"] == number(leg.caller)), None)

    # Calls.

    @property
    def _life(self) -> Life:
        return self.lives[-1]

    async def _dial(self, caller: int, room: Room, host: bool = False) -> Leg | None:
        """Make the call; return None if it was not answered, in which case the caller retries unless the run is
        over."""
        phone, life = self._phones[caller], self._life
        hz = VOICES[caller % len(VOICES)]
        if room.role == "beep":
            phone.silence()
        else:
            phone.tone(hz)
        headers = {
            "X-Ari-Conf-Account": self._where.account,
            "X-Ari-Conf-Document": self._where.documents[f"{room.name} {'host' if host else room.role}"],
        }
        uri = f"sip:15550100@{self._where.sip_address}"
        calling = asyncio.create_task(phone.call(uri, headers=headers, from_user=number(caller)))
        began = now_ms()
        await first_of(calling, life.died.wait(), self.over.wait())
        if not calling.done():
            calling.cancel()
        try:
            await calling
        except asyncio.CancelledError:
            if life.died.is_set():
                await first_of(life.back.wait(), self.over.wait())
            return None
        except CallFailed as error:
            if not life.died.is_set():
                self.counts.unanswered.append((began, f"caller {caller} ({room.name}): {error}"))
            await self._sleep(0.5)
            return None
        self.counts.calls += 1
        answered_ms = phone.answered_at or now_ms()
        leg = Leg(caller, "", hz, answered_ms, phone._recorder, life.number, late=phone.late)
        self.legs.append(leg)
        self._enters(leg, room, life, host)
        return leg

    def _enters(self, leg: Leg, room: Room, life: Life, host: bool) -> None:
        room.legs.append(leg)
        conference = f"{room.name}, {life.number}.{room.number}"
        if room.role != "waiting" or room.hosted:
            leg.conference, leg.from_ms = conference, leg.answered_ms
        elif host:
            room.hosted = True
            for one in room.legs:
                if one.to_ms == inf:
                    one.conference, one.from_ms = conference, leg.answered_ms
                    if one is not leg:
                        one.waits.append((one.answered_ms, leg.answered_ms))

    async def _until(self, leg: Leg, caller: int, room: Room, end: asyncio.Task[None] | None) -> None:
        """Stay until `end` or until something else ends the call, then hang up."""
        phone, life = self._phones[caller], self.lives[leg.life]
        await first_of(life.died.wait(), self.over.wait(), phone.wait_until_hung_up(86400), *([end] if end else []))
        now = life.died_ms if life.died.is_set() else now_ms()
        by_itself = phone.state == "ended" and not life.died.is_set()
        leg.ended_ms = phone.ended_at or now if by_itself else inf
        if by_itself and leg.must_end_ms is None:
            self.counts.dropped.append((leg.ended_ms, f"caller {caller} ({room.name}): {phone.end_reason}"))
        self._leaves(leg, room, now, host=end is not None and room.role == "waiting", all_end=not life.died.is_set())
        await phone.hang_up()
        if life.died.is_set():
            await first_of(life.back.wait(), self.over.wait())

    def _leaves(self, leg: Leg, room: Room, now: float, host: bool, all_end: bool) -> None:
        leg.to_ms = min(leg.to_ms, now)
        room.legs.remove(leg)
        if leg.from_ms == inf:
            leg.waits.append((leg.answered_ms, leg.to_ms))
        if host:
            room.hosted = False
            room.number += 1
            for one in room.legs:
                if one.from_ms < inf:
                    one.to_ms = min(one.to_ms, now)
                    if all_end and not self.over.is_set():
                        one.must_end_ms = now

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but not beyond the end of the run."""
        await first_of(self.over.wait(), asyncio.sleep(seconds))


async def first_of(*waits: Awaitable[Any]) -> None:
    """Wait until one awaitable is done, then cancel the others, except those that were tasks before."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task, wait in zip(tasks, waits, strict=True):
            if task is not wait:
                task.cancel()
