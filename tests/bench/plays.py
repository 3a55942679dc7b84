"""Scripted load of the benchmarks: conferences of 20 whose callers arrive, talk, press digits and leave.

A seed makes each run the same. `recorded` plays them on the core and a strict Asterisk and returns the events in order,
which can be replayed on another core without anything around it.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.account import Account
from ari_conf.core.elements import Conference
from ari_conf.core.engine import Engine
from tests.fakes.asterisk import FOR_ASTERISK, Asterisk

START = 1_700_000_000_000
SIZE = 20
"""The number of members of a conference."""
ACCOUNT = Account("MA1", "http://127.0.0.1/answer")
CALLBACK = "http://127.0.0.1/callback"


@dataclass(frozen=True, slots=True)
class Mix:
    """Behavior of a caller during a call. The defaults are a meeting in which each caller talks about every 30 s."""

    stay_s: tuple[int, int] = (120, 360)
    """The minimum and maximum length of a call in seconds."""
    talk_every_s: float = 30.0
    """The average seconds between talks; 0 if no talking is reported, since no document asked for it."""
    talk_s: float = 3.0
    listened_to: int = 1
    """One of this many conferences asks for floor events."""
    digits: int = 2
    """The number of digits pressed in a call: half match, half are relayed to the others."""


TALKING = Mix()
JOINS = Mix(stay_s=(20, 60), talk_every_s=0.0, digits=0)
"""Callers only come and go: the most expensive events."""


def element(number: str, floor: bool) -> Conference:
    return Conference(
        f"room{number}", callback_url=CALLBACK, enter_sound="beep:1", digits_match=("1",), floor_event=floor
    )


class Recorder:
    """Callers on a core and an Asterisk, both without any delay."""

    def __init__(self, mix: Mix, seed: int = 1, now: int = START) -> None:
        self.mix, self.random, self.now = mix, random.Random(seed), now
        ids = count(1)
        self.engine = Engine(lambda: f"00000000-0000-4000-8000-{next(ids):012x}")
        self.asterisk = Asterisk(lambda _, event: self.news.append(event))
        self.news: deque[ev.Event] = deque()
        self.events: list[tuple[int, ev.Event]] = []
        self.timeline: list[tuple[int, int, str, str]] = []
        """A heap of (time, number (so that entries differ), action, caller)."""
        self._order = count()
        self._callers = count(1)
        self.conference_of: dict[str, str] = {}

    def play(self, conferences: int, arrivals_s: int = 60) -> None:
        """Play conferences from their first caller to their last; they start within `arrivals_s` seconds."""
        for n in range(conferences):
            begins = self.now + self.random.randrange(1, arrivals_s * 1000)
            for _ in range(SIZE):
                self._plan(begins + self.random.randrange(10_000), "arrives", str(n))
        while self.timeline:
            at, _, what, who = heappop(self.timeline)
            self._time_passes(at)
            self._do(what, who)

    def _do(self, what: str, who: str) -> None:
        match what:
            case "arrives":
                self.arrives(who)
            case "talks" if who in self.asterisk.channels:
                self.asterisk.talk(who, True)
                self._plan(self.now + self._around(self.mix.talk_s), "is silent", who)
            case "is silent" if who in self.asterisk.channels:
                self.asterisk.talk(who, False)
                self._plan(self.now + self._around(self.mix.talk_every_s), "talks", who)
            case "hangs up":
                self.asterisk.hang_up(who)
            case _ if what in "15":
                self.asterisk.press(who, what)
        self.go_on()

    def arrives(self, conference: str) -> None:
        channel_id = f"1700000000.{next(self._callers)}"
        self.conference_of[channel_id] = conference
        self.asterisk.call(channel_id)
        number = f"+4930{channel_id[-7:]:0>7}"
        call_uuid, request = self.engine.registry.new_id(), self.engine.registry.new_id()
        self.news.append(ev.CallArrived(channel_id, call_uuid, request, ACCOUNT.auth_id, number, "100"))
        leaves = self.now + self.random.randint(*self.mix.stay_s) * 1000
        self._plan(leaves, "hangs up", channel_id)
        for n in range(self.mix.digits):
            self._plan(self.random.randrange(self.now + 1000, leaves), "15"[n % 2], channel_id)
        if self.mix.talk_every_s:
            self._plan(self.now + self._around(self.mix.talk_every_s), "talks", channel_id)

    def _around(self, seconds: float) -> int:
        return 1 + round(self.random.expovariate(1 / seconds) * 1000)

    def _plan(self, at: int, what: str, who: str) -> None:
        heappush(self.timeline, (at, next(self._order), what, who))

    def _time_passes(self, until: int) -> None:
        while (deadline := self.engine.deadline) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            self.news.append(ev.DeadlineReached())
            self.go_on()
        self.now = until

    def go_on(self) -> None:
        while self.news:
            event = self.news.popleft()
            self.events.append((self.now, event))
            for effect in self.engine.handle_event(event, self.now):
                self._carry_out(effect)
            self.engine.take_changes()

    def _element(self, number: str) -> Conference:
        return element(number, self.mix.talk_every_s > 0 and int(number) % self.mix.listened_to == 0)

    def _carry_out(self, effect: do.Effect) -> None:
        match effect:
            case do.IdentifyCall(call_uuid):
                self.news.append(ev.CallIdentified(call_uuid, ACCOUNT))
            case do.FetchDocument(fetch_id):
                call = self.engine.calls[fetch_id.split(".")[1]]
                found = (self._element(self.conference_of[call.channel_id]),)
                self.news.append(ev.DocumentFetched(fetch_id, found))
            case do.PrepareSound(playback_id):
                self.news.append(ev.SoundPrepared(playback_id, "sound:beep"))
            case do.ClaimName(_, _, conference_id):
                self.news.append(ev.NameClaimed(conference_id))
            case do.PlayMedia(_, playback_id):
                self.asterisk.obey(effect)
                self.asterisk.finish(playback_id)
            case _ if isinstance(effect, FOR_ASTERISK):
                self.asterisk.obey(effect)
                if isinstance(effect, do.CreateBridge):
                    self.news.append(ev.BridgeCreated(effect.bridge_id))


def recorded(mix: Mix, conferences: int, seed: int = 1) -> list[tuple[int, ev.Event]]:
    """Return (epoch ms, event) in order."""
    recorder = Recorder(mix, seed)
    recorder.play(conferences)
    return recorder.events
