"""RTP monitor: polls what phones send and are sent, since Asterisk reports nothing of it.

It requests `GET /channels/{id}/rtp_statistics`. The results are events for the engine: another stream (StreamSeen),
sound that has stopped (AudioStopped), a phone that is sent nothing (NothingSent), a hold that was not reported
(PhoneHeld, PhoneResumed), and the quality of members' lines (`LineMeter`). The monitor itself does one thing: it asks a
phone that sends nothing, by a re-INVITE, if it is still there. The phone's answer postpones `rtp_timeout` and
`rtp_timeout_hold` (seen on Asterisk 22.10.1); without an answer, Asterisk ends the call.

A round takes ROUND_S and has at most MAX_POLLS_PER_ROUND polls: first of the few lines to be measured, then of callers
who are talking or have just done so, then of the others in turn. A poll takes 0.04 ms of CPU time in Asterisk and
0.06 ms in the server.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from ari_conf.ari.client import Client
from ari_conf.ari.translate import path
from ari_conf.common.supervision import for_each
from ari_conf.core import events as ev
from ari_conf.core.calls.call import Call
from ari_conf.core.calls.gather import Gather
from ari_conf.core.engine import Engine
from ari_conf.core.playback.player import Player
from ari_conf.errors import REPORT_HINT, AriError
from ari_conf.server.line_meter import LineMeter, Statistics

log = structlog.get_logger()

ROUND_S = 0.5
SCAN_BATCH = 500
"""Number of queued channels, most of which no longer talk, that are examined before other tasks run."""
MAX_POLLS_PER_ROUND, RESERVED_POLLS = 200, 50
"""Maximum number of polls per round, and how many of them are reserved for callers who are not talking. With at most
MAX_POLLS_PER_ROUND calls, each call is polled in every round."""
MAX_CONCURRENT_POLLS = 4
"""Concurrent polls: most of the connections to Asterisk are left for calls."""
RECENT_S = 10.0
"""Seconds after talking, a hold or their arrival for which callers are polled in every round."""
MAX_SILENCE_S = 0.75
"""Seconds without sound after which a caller is not talking; two rounds detect it."""
MAX_UNSENT_S = 1.0
"""Seconds for which a phone is sent nothing before it is sent silence."""
MIN_SOUND_BYTES_PER_S = 400
"""Minimum bytes per second that count as sound: comfort noise has fewer, every speech codec has more."""
JUMP_PACKETS = 1000
"""Packets lost between two polls that can't really be lost in that time: the sequence numbers have jumped."""
HOLD_POLL_S = 60.0
"""Seconds between two checks whether the phone has put the call on hold."""
HOLD_VARIABLE, REFRESH_FUNCTION = "CHANNEL(rtp,hold,audio)", "PJSIP_SEND_SESSION_REFRESH()"


def _now() -> float:
    return asyncio.get_running_loop().time()


@dataclass(slots=True)
class Watched:
    """The results of a channel's earlier polls; times are seconds of the event loop's clock."""

    recent_until: float
    hold_known_at: float
    last: Statistics | None = None
    polled_at: float = 0.0
    packet_at: float = 0.0
    sound_at: float = 0.0
    sent_at: float = 0.0
    probed_at: float = 0.0
    holds: int = 0
    """Number of holds and ends of holds that Asterisk has reported."""


class Wanted(NamedTuple):
    channel_id: str
    is_talking: bool


class RtpMonitor:
    def __init__(
        self,
        ari: Client,
        engine: Engine,
        deliver: Callable[[ev.Event], None],
        may_poll: Callable[[], bool],
        rtp_timeout: int,
    ) -> None:
        """Create the monitor.

        `may_poll` returns True while Asterisk is connected and earlier events are processed. `rtp_timeout`: the
        setting of Asterisk's endpoints, in seconds; 0: silent phones are not asked.
        """
        self._ari = ari
        self._engine = engine
        self._deliver = deliver
        self._lines = LineMeter(ari, deliver)
        self._may_poll = may_poll
        self._probe_after_s = rtp_timeout / 3 if rtp_timeout else None
        self._watched: dict[str, Watched] = {}
        """State by channel id. A channel that is not answered or does not use RTP is removed when it is its turn."""
        self._talkers: OrderedDict[str, None] = OrderedDict()
        """Channel ids of callers who are talking; the one polled longest ago comes first."""
        self._recent: OrderedDict[str, None] = OrderedDict()
        """Channel ids of callers who talked, arrived or were on hold within RECENT_S, in the same order."""
        self._turn: deque[str] = deque()
        """Channel ids to be polled in turn; some may no longer exist."""

    def start_over(self) -> None:
        """Start over after a connection: nothing earlier is known, except the stream, which is in the state."""
        for each in (self._watched, self._talkers, self._recent, self._turn):
            each.clear()
        self._lines.start_over()
        for call in self._engine.calls.values():
            self._watch(call.channel_id, float("-inf"))

    def watch(self, channel_id: str) -> None:
        """Poll the channel from now on, if it is answered."""
        self._watch(channel_id, _now())

    def _watch(self, channel_id: str, hold_known_at: float) -> None:
        self._watched[channel_id] = Watched(_now() + RECENT_S, hold_known_at)
        self._recent[channel_id] = None
        self._lines.add(channel_id)

    def observe_event(self, event: ev.Event) -> None:
        """Observe an event. To be called for every event."""
        match event:
            case ev.TalkingStarted(channel_id) | ev.TalkingFinished(channel_id):
                pass
            case ev.PhoneHeld(channel_id) | ev.PhoneResumed(channel_id):
                if (watched := self._watched.get(channel_id)) is not None:
                    watched.holds += 1
            case ev.ChannelHungUp(channel_id):
                self._forget(channel_id)
                return
            case _:
                return
        if (watched := self._watched.get(channel_id)) is None:
            return
        watched.recent_until = _now() + RECENT_S
        if isinstance(event, ev.TalkingStarted):
            # There was sound just now, even if the next poll sees only one packet of it after a long silence.
            watched.sound_at = _now()
            self._recent.pop(channel_id, None)
            self._talkers[channel_id] = None
        elif channel_id not in self._talkers:
            self._recent[channel_id] = None

    def _forget(self, channel_id: str) -> None:
        for each in (self._watched, self._talkers, self._recent):
            each.pop(channel_id, None)
        self._lines.forget(channel_id)

    async def run(self) -> None:
        """Poll in rounds. Never returns."""
        while True:
            started_at = _now()
            if self._may_poll():
                try:
                    await self._round(started_at)
                except Exception:
                    log.exception("rtp monitor raised", hint=REPORT_HINT)
            await asyncio.sleep(max(ROUND_S - (_now() - started_at), ROUND_S / 5))

    async def _round(self, now: float) -> None:
        to_measure = [wanted for each in self._lines.choose(now) if (wanted := self._wanted(each)) is not None]
        chosen = {wanted.channel_id: wanted for wanted in to_measure}
        for queue in (self._talkers, self._recent):
            await self._choose(queue, chosen, now)
        if not self._turn:
            self._turn.extend(self._watched)
        for _ in range(min(len(self._turn), MAX_POLLS_PER_ROUND)):
            if len(chosen) == MAX_POLLS_PER_ROUND:
                break
            if (wanted := self._wanted(self._turn.popleft())) is not None:
                chosen[wanted.channel_id] = wanted
                if wanted.is_talking:
                    self._talkers[wanted.channel_id] = None
        await for_each(chosen.values(), self._poll, MAX_CONCURRENT_POLLS)

    async def _choose(self, queue: OrderedDict[str, None], chosen: dict[str, Wanted], now: float) -> None:
        """Choose channels from the front of the queue while there is room; requeue each where it belongs now."""
        for number in range(1, len(queue) + 1):
            if number % SCAN_BATCH == 0:
                await asyncio.sleep(0)
            # The queue may have become empty while other tasks ran.
            if len(chosen) >= MAX_POLLS_PER_ROUND - RESERVED_POLLS or not queue:
                return
            channel_id, _ = queue.popitem(last=False)
            if (wanted := self._wanted(channel_id)) is None:
                continue
            if wanted.is_talking:
                self._talkers[channel_id] = None
            elif self._watched[channel_id].recent_until > now:
                self._recent[channel_id] = None
            else:
                continue
            chosen[channel_id] = wanted

    async def _poll(self, wanted: Wanted) -> None:
        watched = self._watched.get(wanted.channel_id)
        if watched is None:
            return
        try:
            if _now() - watched.hold_known_at > HOLD_POLL_S:
                await self._poll_hold(wanted.channel_id, watched)
            where = path("channels", wanted.channel_id, "rtp_statistics")
            found = await self._ari.request("GET", where, kind=Statistics)
            if found is None:
                return
            self._process(wanted, watched, found, _now())
            call = self._call(wanted.channel_id)
            await self._lines.process(wanted.channel_id, call.conference_id if call else None, found, _now())
            if self._needs_probe(watched):
                await self._probe(wanted.channel_id, watched)
        except AriError as error:
            if error.status == 404:
                # The channel does not use RTP, or no longer exists.
                self._forget(wanted.channel_id)

    async def _poll_hold(self, channel_id: str, watched: Watched) -> None:
        holds = watched.holds
        answer = await self._ari.request("GET", path("channels", channel_id, "variable"), {"variable": HOLD_VARIABLE})
        watched.hold_known_at = _now()
        on_hold = isinstance(answer, dict) and answer.get("value") == "1"
        call = self._call(channel_id)
        if call is not None and call.on_hold != on_hold and holds == watched.holds:
            self._deliver(ev.PhoneHeld(channel_id) if on_hold else ev.PhoneResumed(channel_id))

    def _call(self, channel_id: str) -> Call | None:
        return self._engine.calls.get(self._engine.log_context(channel_id).get("call_uuid", ""))

    def _process(self, wanted: Wanted, watched: Watched, current: Statistics, now: float) -> None:
        previous, watched.last = watched.last, current
        previous_poll_at, watched.polled_at = watched.polled_at, now
        call = self._call(wanted.channel_id)
        if call is None:
            return
        is_new_stream = bool(current.remote_ssrc) and current.remote_ssrc != call.stream
        has_jumped = previous is not None and not is_new_stream and current.rxploss - previous.rxploss > JUMP_PACKETS
        if previous is None or is_new_stream:
            watched.packet_at = watched.sound_at = now
            watched.sent_at = now if previous is None else watched.sent_at
        if previous is not None:
            self._measure(watched, previous, current, previous_poll_at, now)
        if is_new_stream or has_jumped:
            self._deliver(ev.StreamSeen(wanted.channel_id, current.remote_ssrc, has_jumped))
        if wanted.is_talking and now - watched.sound_at >= MAX_SILENCE_S:
            self._deliver(ev.AudioStopped(wanted.channel_id, round((now - watched.sound_at) * 1000)))
        if now - watched.sent_at >= MAX_UNSENT_S and call.conference_id is None:
            watched.sent_at = now
            self._deliver(ev.NothingSent(wanted.channel_id))

    def _measure(
        self, watched: Watched, previous: Statistics, current: Statistics, previous_poll_at: float, now: float
    ) -> None:
        if current.rxcount != previous.rxcount:
            watched.packet_at = now
        # With another stream, the counters restart at zero.
        octets = current.rxoctetcount - previous.rxoctetcount
        if octets < 0 or octets >= MIN_SOUND_BYTES_PER_S * (now - previous_poll_at):
            watched.sound_at = now
        if current.txcount != previous.txcount:
            watched.sent_at = now

    def _needs_probe(self, watched: Watched) -> bool:
        after = self._probe_after_s
        return after is not None and watched.polled_at - max(watched.packet_at, watched.probed_at) >= after

    async def _probe(self, channel_id: str, watched: Watched) -> None:
        watched.probed_at = watched.polled_at
        log.debug("silent phone probed", channel_id=channel_id)
        query = {"variable": REFRESH_FUNCTION, "value": "invite"}
        await self._ari.request("POST", path("channels", channel_id, "variable"), query)

    def _wanted(self, channel_id: str) -> Wanted | None:
        """Return the channel to poll, or None if it is not polled, now or later."""
        if channel_id not in self._watched:
            return None
        call = self._call(channel_id)
        if call is None or call.is_ending or call.answered_at is None:
            self._forget(channel_id)
            return None
        return Wanted(channel_id, self._is_talking(call))

    def _is_talking(self, call: Call) -> bool:
        conference = self._engine.conferences.get(call.conference_id or "")
        if conference is not None:
            member = conference.member_of(call.channel_id)
            return member is not None and member.talking
        player = call.running.player if isinstance(call.running, Gather) else call.running
        # A Wait element that waits for silence, which talking has interrupted.
        return isinstance(player, Player) and player.silence_ms is not None and player.quiet_until is None
