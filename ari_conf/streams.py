"""Looks at what phones send and are sent, since Asterisk tells nothing of it: `GET /channels/{id}/rtp_statistics`.

What follows from a look is an event of the core's: another stream (StreamSeen), sound that has stopped (AudioStopped),
a phone that is sent nothing (NothingSent), a hold of which nobody was told (PhoneHeld, PhoneResumed). By itself it does
one thing: a phone that sends nothing is asked by a re-INVITE whether it is there. Its answer puts `rtp_timeout` and
`rtp_timeout_hold` off (seen on 22.10.1); without one Asterisk ends the call.

A round takes ROUND_S, and MOST_A_ROUND looks at most: first at those who talk or have just done so, then at the others
in turn. A look costs Asterisk 0.04 ms of CPU and us 0.06.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from heapq import nsmallest
from typing import NamedTuple

import msgspec
import structlog

from ari_conf.ari.client import Client
from ari_conf.ari.translate import path
from ari_conf.core import events as ev
from ari_conf.core.call import Call
from ari_conf.core.directory import Directory
from ari_conf.core.gather import Gather
from ari_conf.core.player import Player
from ari_conf.errors import AriError
from ari_conf.supervision import for_each

log = structlog.get_logger()

ROUND_S = 0.5
GONE_OVER_AT_ONCE = 500
"""Calls; then others have their turn."""
MOST_A_ROUND, IN_TURN = 200, 50
"""Looks, and how many of them are left for those who don't talk, however many do. Up to so many calls are each looked
at in each round."""
LOOKS_AT_ONCE = 4
"""Of the connections to Asterisk most are left for calls."""
RECENT_S = 10.0
"""For so long after their talk, a hold or their arrival callers are looked at in each round."""
SILENT_S = 0.75
"""After so long without sound they don't talk: two rounds."""
UNSENT_S = 1.0
"""A phone that is sent nothing for so long is sent silence."""
LEAST_OCTETS_S = 400
"""Of sound, for a second: comfort noise has less, each codec for speech more."""
JUMP = 1000
"""Packets lost between two looks that can't have been lost in that time: the numbers have jumped."""
HOLD_S = 60.0
"""As often it is looked at whether the phone holds us."""
HELD, REFRESH = "CHANNEL(rtp,hold,audio)", "PJSIP_SEND_SESSION_REFRESH()"


def _now() -> float:
    return asyncio.get_running_loop().time()


class Statistics(msgspec.Struct):
    """Of what Asterisk tells, what is needed."""

    remote_ssrc: int = 0
    rxcount: int = 0
    rxoctetcount: int = 0
    rxploss: int = 0
    txcount: int = 0


@dataclass(slots=True)
class Watched:
    """What is known of a channel from earlier looks; times are the loop's."""

    since: float
    last: Statistics | None = None
    looked_at: float = 0.0
    packet_at: float = 0.0
    sound_at: float = 0.0
    sent_at: float = 0.0
    asked_at: float = 0.0
    hold_known_at: float = float("-inf")
    holds: int = 0
    """How often Asterisk has told of a hold or its end."""
    recent_until: float = 0.0
    without: bool = False
    """Asterisk has no statistics of it: it does not speak RTP."""


class Wanted(NamedTuple):
    channel_id: str
    talks: bool


class Streams:
    def __init__(
        self,
        ari: Client,
        directory: Directory,
        deliver: Callable[[ev.Event], None],
        may_look: Callable[[], bool],
        rtp_timeout: int,
    ) -> None:
        """`may_look`: Asterisk is connected, and what happened before is worked off. `rtp_timeout`: of Asterisk's
        endpoints, in seconds; 0: silent phones are not asked."""
        self._ari = ari
        self._directory = directory
        self._deliver = deliver
        self._may_look = may_look
        self._ask_after_s = rtp_timeout / 3 if rtp_timeout else None
        self._watched: dict[str, Watched] = {}
        self._missed = True
        """What happened to calls before they were first looked at was perhaps not told."""
        self._turn: deque[str] = deque()
        """Those who are looked at in turn; they may be gone."""

    def connected(self) -> None:
        """What happened before is not known, but for the stream, which the state has."""
        self._watched.clear()
        self._missed = True

    def heard(self, event: ev.Event) -> None:
        """Told of each event."""
        match event:
            case ev.TalkingStarted(channel_id) | ev.TalkingFinished(channel_id):
                pass
            case ev.PhoneHeld(channel_id) | ev.PhoneResumed(channel_id):
                if (watched := self._watched.get(channel_id)) is not None:
                    watched.holds += 1
            case _:
                return
        if (watched := self._watched.get(channel_id)) is not None:
            watched.recent_until = _now() + RECENT_S
            if isinstance(event, ev.TalkingStarted):
                # There was sound: also if the next look comes after a packet of it, and none for long before.
                watched.sound_at = _now()

    async def run(self) -> None:
        """Never returns."""
        while True:
            begun = _now()
            if self._may_look():
                try:
                    await self._round(begun)
                except Exception:
                    log.exception("looking at streams broke: this is a defect of ari_conf, please report it")
            await asyncio.sleep(max(ROUND_S - (_now() - begun), ROUND_S / 5))

    async def _round(self, now: float) -> None:
        wanted: dict[str, Wanted] = {}
        recent: list[tuple[Watched, Wanted]] = []
        for number, call in enumerate(list(self._directory.calls.values()), 1):
            if number % GONE_OVER_AT_ONCE == 0:
                await asyncio.sleep(0)
            if (one := self._wanted(call)) is None:
                continue
            wanted[one.channel_id] = one
            watched = self._watched.get(one.channel_id)
            if watched is None:
                hold_known_at = float("-inf") if self._missed else now
                watched = Watched(now, recent_until=now + RECENT_S, hold_known_at=hold_known_at)
                self._watched[one.channel_id] = watched
            if (one.talks or watched.recent_until > now) and not watched.without:
                recent.append((watched, one))
        if len(self._watched) > len(wanted):
            self._watched = {key: watched for key, watched in self._watched.items() if key in wanted}
        self._missed = False
        await for_each(self._chosen(wanted, recent), self._look, LOOKS_AT_ONCE)

    def _chosen(self, wanted: dict[str, Wanted], recent: list[tuple[Watched, Wanted]]) -> Iterable[Wanted]:
        most = MOST_A_ROUND - IN_TURN
        if len(recent) > most:
            # Those who talk, and then those who were looked at longest ago.
            recent = nsmallest(most, recent, lambda each: (not each[1].talks, each[0].looked_at))
        # It keeps their order.
        chosen = dict.fromkeys(one.channel_id for _, one in recent)
        if not self._turn:
            self._turn.extend(wanted)
        while self._turn and len(chosen) < MOST_A_ROUND:
            key = self._turn.popleft()
            watched = self._watched.get(key)
            if key in wanted and watched is not None and not watched.without:
                chosen[key] = None
        return [wanted[key] for key in chosen]

    async def _look(self, one: Wanted) -> None:
        watched = self._watched.get(one.channel_id)
        if watched is None:
            return
        try:
            if _now() - watched.hold_known_at > HOLD_S:
                await self._look_at_hold(one.channel_id, watched)
            where = path("channels", one.channel_id, "rtp_statistics")
            found = await self._ari.request("GET", where, kind=Statistics)
        except AriError as error:
            # 404 also if the channel has just gone; then it is wanted no longer.
            watched.without = error.status == 404
            return
        if found is not None:
            self._seen(one, watched, found, _now())
            if self._is_to_be_asked(watched):
                await self._ask(one.channel_id, watched)

    async def _look_at_hold(self, channel_id: str, watched: Watched) -> None:
        holds = watched.holds
        answer = await self._ari.request("GET", path("channels", channel_id, "variable"), {"variable": HELD})
        watched.hold_known_at = _now()
        on_hold = isinstance(answer, dict) and answer.get("value") == "1"
        call = self._call(channel_id)
        if call is not None and call.on_hold != on_hold and holds == watched.holds:
            self._deliver(ev.PhoneHeld(channel_id) if on_hold else ev.PhoneResumed(channel_id))

    def _call(self, channel_id: str) -> Call | None:
        return self._directory.calls.get(self._directory.whose(channel_id).get("call_uuid", ""))

    def _seen(self, one: Wanted, watched: Watched, now_is: Statistics, now: float) -> None:
        before, watched.last = watched.last, now_is
        since, watched.looked_at = watched.looked_at, now
        call = self._call(one.channel_id)
        if call is None:
            return
        other = bool(now_is.remote_ssrc) and now_is.remote_ssrc != call.stream
        jumped = before is not None and not other and now_is.rxploss - before.rxploss > JUMP
        if before is None or other:
            watched.packet_at = watched.sound_at = now
            watched.sent_at = now if before is None else watched.sent_at
        if before is not None:
            self._measure(watched, before, now_is, since, now)
        if other or jumped:
            self._deliver(ev.StreamSeen(one.channel_id, now_is.remote_ssrc, jumped))
        if one.talks and now - watched.sound_at >= SILENT_S:
            self._deliver(ev.AudioStopped(one.channel_id, round((now - watched.sound_at) * 1000)))
        if now - watched.sent_at >= UNSENT_S and call.conference_id is None:
            watched.sent_at = now
            self._deliver(ev.NothingSent(one.channel_id))

    def _measure(self, watched: Watched, before: Statistics, now_is: Statistics, since: float, now: float) -> None:
        if now_is.rxcount != before.rxcount:
            watched.packet_at = now
        # With another stream they count from zero again.
        octets = now_is.rxoctetcount - before.rxoctetcount
        if octets < 0 or octets >= LEAST_OCTETS_S * (now - since):
            watched.sound_at = now
        if now_is.txcount != before.txcount:
            watched.sent_at = now

    def _is_to_be_asked(self, watched: Watched) -> bool:
        after = self._ask_after_s
        return after is not None and watched.looked_at - max(watched.packet_at, watched.asked_at) >= after

    async def _ask(self, channel_id: str, watched: Watched) -> None:
        watched.asked_at = watched.looked_at
        log.debug("a silent phone is asked whether it is there", channel_id=channel_id)
        query = {"variable": REFRESH, "value": "invite"}
        await self._ari.request("POST", path("channels", channel_id, "variable"), query)

    def _wanted(self, call: Call) -> Wanted | None:
        if call.over or call.answered_at is None:
            return None
        conference = self._directory.conferences.get(call.conference_id or "")
        if conference is not None:
            member = conference.member_of(call.channel_id)
            return Wanted(call.channel_id, member is not None and member.talking)
        player = call.running.player if isinstance(call.running, Gather) else call.running
        # Wait silence, which somebody's talk has interrupted.
        talks = isinstance(player, Player) and player.silence_ms is not None and player.quiet_until is None
        return Wanted(call.channel_id, talks)
