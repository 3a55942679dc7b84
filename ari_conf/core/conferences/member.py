"""Member of a conference: its state, its media state, its sounds, and its digits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Literal

import msgspec

from ari_conf.core import ids
from ari_conf.core.conferences.conference_state import SharedAudioState
from ari_conf.core.conferences.digit_matching import DigitMatcher
from ari_conf.core.conferences.member_state import (
    AWAITING_BRIDGE,
    AWAITING_NAME,
    ENTERING_BRIDGE,
    IN_BRIDGE,
    LEAVING,
    LEAVING_FOR_HOLD,
    ON_HOLD,
    TRANSITIONS,
    WAITING,
    MemberState,
)
from ari_conf.core.effects import (
    AddChannel,
    ArchiveTalks,
    DeafenChannel,
    DetectTalking,
    Effect,
    MuteChannel,
    RemoveChannel,
    ReportProblem,
    StartMusic,
    StopMusic,
    Target,
)
from ari_conf.core.elements import Conference as Element
from ari_conf.core.elements import Play, Prompt
from ari_conf.core.events import ChannelEnteredBridge, ChannelLeftBridge, Event, SoundFailed
from ari_conf.core.expectations import AsteriskState, Expectation
from ari_conf.core.messages import Outputs, SoundDocumentRequested
from ari_conf.core.playback.player import Player
from ari_conf.core.playback.private_playback import PrivatePlayback
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.core.quality import LineQuality
from ari_conf.core.transitions import checked

WAIT_SOUND_RETRY_MS = 5000
"""Minimum milliseconds before a wait-sound document that contained no sound is requested again (decided)."""

TALKS_AT_ONCE = 20
"""Talks of a member that are handed to the history together."""
FLOOR_SILENCE_MS = 500
"""Milliseconds of silence that end talking."""
ExitReason = Literal[
    "hangup", "star", "kick", "api_hangup", "time_limit", "host_left", "left_alone", "conference_ended"
]


MAY_HEAR_PRIVATE_PLAYBACK = (WAITING, IN_BRIDGE, ON_HOLD)
"""In the other states, the call is not answered yet, or the channel is being moved."""


@cache
def _beep(name: str) -> tuple[Prompt, ...]:
    return (Play(name),)


class ConferenceSound(msgspec.Struct):
    """Enter, exit or wait sound: known immediately (a beep, or none), or fetched from a URL."""

    action: Literal["enterSound", "exitSound", "waitSound"]
    url: str | None = None
    """URL of the sound document; None: there is nothing to fetch."""
    items: tuple[Prompt, ...] | None = None
    """Sounds to play; None: not known (yet)."""
    request_count: int = 0
    """Number of requests for the document so far: part of the request's id."""
    request_pending: bool = False

    @classmethod
    def of(cls, action: Literal["enterSound", "exitSound", "waitSound"], attribute: str | None) -> ConferenceSound:
        if attribute is None:
            return cls(action, items=())
        if attribute.startswith("beep:"):
            return cls(action, items=_beep(attribute))
        return cls(action, url=attribute)


class Member(msgspec.Struct):
    member_id: int
    conference_id: str
    auth_id: str
    call_uuid: str
    channel_id: str
    element: Element
    joined_at: int
    recording_id: str
    """Id of the recording, if this member's element starts one."""
    matcher: DigitMatcher
    enter_sound: ConferenceSound
    exit_sound: ConferenceSound
    wait_sound: ConferenceSound
    wideband: bool = False
    muted: bool = False
    deaf: bool = False
    state: MemberState = AWAITING_NAME
    """Changed by `change_state` only."""
    reason: ExitReason | None = None
    """Reason for leaving; None: no departure has been decided."""
    additions: int = 0
    """Number of AddChannel requests so far, without those that let the channel re-enter the bridge."""
    leaving_until: int | None = None
    """Epoch milliseconds at which RemoveChannel is repeated."""
    removals: int = 0
    """Number of repeated RemoveChannel requests so far."""
    stuck: bool = False
    """True if Asterisk could not remove the channel: it is muted and deafened until it is out of the bridge."""
    outside: bool = False
    """True if Asterisk has reported that the channel is not in the bridge."""
    player: Player | None = None
    """Player of the wait or hold sound."""
    music: bool = False
    """True while the default music plays."""
    wait_sound_retry_at: int | None = None
    """Epoch milliseconds before which a wait-sound document that contained no sound is not requested again."""
    rounds: int = 0
    """Number of wait and hold sounds started so far: part of their playback ids."""
    talk_detection_on: bool = False
    """True if Asterisk reports when the member talks."""
    talking: bool = False
    talking_at: int = 0
    """Epoch milliseconds since which the member talks."""
    enter_due: bool = False
    """True if the enter sound is to be played as soon as the member is in the bridge and the sound is known."""
    scheduled_digits: tuple[tuple[int, str], ...] = ()
    """Remaining sendDigits as (epoch milliseconds, digits)."""
    has_entered_bridge: bool = False
    """True once the member has been in the bridge."""
    held_by_phone: bool = False
    """True while the member's phone has put the call on hold: nothing that the phone sends is heard."""
    stream_restarted: bool = False
    """True if the phone's RTP stream has restarted: Asterisk may drop its packets until the channel has left the bridge
    and re-entered it. The channel does so as soon as nothing is played to it alone."""
    reentering: bool = False
    """True while the channel leaves the bridge and re-enters it at the server's request."""
    hold_requested: bool = False
    """True while the API wants the member on hold: from the conference start on, out of the bridge, hearing music."""
    hold_url: str | None = None
    """URL of the hold sound; None: the default music."""
    private_playback: PrivatePlayback = msgspec.field(default_factory=PrivatePlayback)
    quality: LineQuality | None = None
    """Quality of the member's line; None: not measured yet."""
    talk_ms: int | None = None
    """Milliseconds of talking so far; None: nothing has listened for it yet."""
    talks: list[int] = msgspec.field(default_factory=list)
    """Talks that the history does not have yet: start, end, start, end …, in milliseconds since the member joined."""

    @classmethod
    def create(
        cls,
        member_id: int,
        conference_id: str,
        auth_id: str,
        call_uuid: str,
        channel_id: str,
        element: Element,
        recording_id: str,
    ) -> Member:
        return cls(
            member_id,
            conference_id,
            auth_id,
            call_uuid,
            channel_id,
            element,
            0,
            recording_id,
            DigitMatcher(element.digits_match),
            ConferenceSound.of("enterSound", element.enter_sound),
            ConferenceSound.of("exitSound", element.exit_sound),
            ConferenceSound.of("waitSound", element.wait_sound),
            muted=element.muted,
        )

    @property
    def is_present(self) -> bool:
        """Return True if the member has been admitted and is not leaving."""
        return self.state is not AWAITING_NAME and self.state is not LEAVING

    @property
    def silenced(self) -> bool:
        """Return True if nothing from the channel may be heard in the conference."""
        return self.muted or self.held_by_phone

    @property
    def is_silent(self) -> bool:
        """Return True if nothing is played to this member alone, or about to be."""
        return not (self.player or self.music or self.wait_sound_retry_at or self.private_playback.queue)

    @property
    def deadline(self) -> int | None:
        private = self.private_playback.player
        waits = self.leaving_until or self.wait_sound_retry_at or self.matcher.deadline
        if not (waits or self.player or private or self.scheduled_digits):
            return None
        times = [self.leaving_until, self.wait_sound_retry_at, self.matcher.deadline]
        times.append(self.player.deadline if self.player else None)
        times.append(private.deadline if private else None)
        times.append(self.scheduled_digits[0][0] if self.scheduled_digits else None)
        return min((t for t in times if t is not None), default=None)

    def problem(self, kind: ProblemKind, text: str) -> ReportProblem:
        return ReportProblem(self.auth_id, self.call_uuid, kind, None, text)

    # Talking, for the history.

    def note_talk(self, end: int) -> list[Effect]:
        """Note, if the member is talking and heard, that they have been talking until `end`. Return the talks for the
        history if there are TALKS_AT_ONCE."""
        if not self.talking or self.silenced:
            return []
        start = max(self.talking_at, self.joined_at, self.joined_at + (self.talks[-1] if self.talks else 0))
        if end <= start:
            return []
        self.talk_ms = (self.talk_ms or 0) + end - start
        self.talks += (start - self.joined_at, end - self.joined_at)
        if len(self.talks) < 2 * TALKS_AT_ONCE:
            return []
        return [ArchiveTalks(self.conference_id, self.member_id, self.auth_id, self.take_talks())]

    def take_talks(self) -> tuple[tuple[int, int], ...]:
        """Return the talks that the history does not have yet, in epoch milliseconds, and forget them."""
        times = [self.joined_at + offset for offset in self.talks]
        self.talks = []
        return tuple(zip(times[::2], times[1::2], strict=True))

    def change_state(self, to: MemberState) -> None:
        """Change the state. Raises IllegalTransition, and changes nothing, if `TRANSITIONS` does not have it."""
        self.state = checked(TRANSITIONS, self.state, to)

    # Media state.

    def update_media(self, audio: SharedAudioState, bridge_id: str, now: int) -> Outputs:
        """Adjust what Asterisk does for this member to the state of the member and of the conference.

        Asterisk runs playback and moves on a channel sequentially: sounds are stopped before the channel is moved.
        """
        before = self.state
        out = self._update_hold(audio)
        out += self._update_wait_sound(audio, now)
        out += self._update_private_playback(now)
        out += self._move_channel(before, audio, bridge_id)
        return out + self._update_stream(audio, bridge_id)

    def _update_hold(self, audio: SharedAudioState) -> Outputs:
        """Start or end hold as requested. A member on hold is kept outside the bridge, so that the member and the
        others cannot hear each other, whatever is played to the member."""
        if audio.started and self.state is WAITING:
            self.change_state(AWAITING_BRIDGE)
        if self.state is IN_BRIDGE and self.hold_requested and not self.reentering:
            self.change_state(LEAVING_FOR_HOLD)
        elif self.state is AWAITING_BRIDGE and self.hold_requested:
            self.change_state(ON_HOLD)
            return [DeafenChannel(self.channel_id, False)] if self.deaf else []
        elif self.state is ON_HOLD and not self.hold_requested:
            self.change_state(AWAITING_BRIDGE)
            return [DeafenChannel(self.channel_id, True)] if self.deaf else []
        return []

    def _update_wait_sound(self, audio: SharedAudioState, now: int) -> Outputs:
        if audio.ending or self.private_playback.queue:
            return self.stop_wait_sound()
        if self.state is ON_HOLD:
            return self._play_hold_sound(now)
        # Spec: while no member with startConferenceOnEnter=true has come, no member hears another, and each hears their
        # own waitSound. A lone member hears their waitSound; it stops the instant that a second member enters.
        waits = self.state is WAITING if not audio.started else audio.one_member_present and self.state is IN_BRIDGE
        return self._play_wait_sound(now) if waits else self.stop_wait_sound()

    def _move_channel(self, before: MemberState, audio: SharedAudioState, bridge_id: str) -> Outputs:
        if self.state is LEAVING_FOR_HOLD and before is not LEAVING_FOR_HOLD:
            return [RemoveChannel(self.channel_id, bridge_id, self.member_id)]
        if self.state is AWAITING_BRIDGE and audio.bridge_ready:
            self.change_state(ENTERING_BRIDGE)
            self.additions += 1
            return [AddChannel(self.channel_id, bridge_id, self.member_id)]
        return []

    def _update_stream(self, audio: SharedAudioState, bridge_id: str) -> Outputs:
        """Let the channel re-enter the bridge after its RTP stream has restarted.

        A channel that is added to the bridge that it is in leaves and re-enters it within 20 ms (seen on Asterisk
        22.10.1). While a sound plays to the channel alone, this would happen only after the sound.
        """
        if not self.stream_restarted or self.reentering or self.state is not IN_BRIDGE:
            return []
        if not self.is_silent or self.hold_requested or audio.ending or not audio.bridge_ready:
            return []
        self.stream_restarted, self.reentering = False, True
        return [AddChannel(self.channel_id, bridge_id, self.member_id)]

    def restart_talk_detection(self) -> Outputs:
        """Restart talk detection, if it is on. If a member's audio stopped without packets of silence, Asterisk still
        considers them to be talking, and would not report the next talking."""
        if not self.talk_detection_on or self.state is LEAVING:
            return []
        return [DetectTalking(self.channel_id, None), DetectTalking(self.channel_id, FLOOR_SILENCE_MS)]

    # Wait, hold and private sounds.

    def _play_wait_sound(self, now: int) -> Outputs:
        """Play the member's waitSound; without one, default music before the start, silence when alone after it."""
        sound = self.wait_sound
        if self.player is not None or self.music or sound.request_pending or self.wait_sound_retry_at is not None:
            return []
        if sound.items is None:
            return self.request_sound(sound)
        if sound.items:
            self.rounds += 1
            owner = ids.for_member(self.conference_id, self.member_id, "wait", self.rounds)
            self.player = Player(owner, Target("channel", self.channel_id), sound.items, endless=True)
            return [*self.player.start(now)]
        if self.state is IN_BRIDGE:
            return []
        self.music = True
        return [StartMusic(self.channel_id)]

    def _play_hold_sound(self, now: int) -> Outputs:
        """Loop the hold sound that the API named; without one, play the default music."""
        if self.player is not None or self.music:
            return []
        if self.hold_url is None:
            self.music = True
            return [StartMusic(self.channel_id)]
        self.rounds += 1
        owner = ids.for_member(self.conference_id, self.member_id, "hold", self.rounds)
        self.player = Player(owner, Target("channel", self.channel_id), (Play(self.hold_url),), endless=True)
        return [*self.player.start(now)]

    def _update_private_playback(self, now: int) -> Outputs:
        if self.private_playback.player is None and not self.private_playback.queue:
            return []
        owner = ids.for_member(self.conference_id, self.member_id, "private")
        may_play = self.state in MAY_HEAR_PRIVATE_PLAYBACK
        return [*self.private_playback.update(owner, Target("channel", self.channel_id), may_play, now)]

    def stop_all_sounds(self) -> Outputs:
        """Stop everything that is played to this member alone."""
        return [] if self.is_silent else [*self.stop_wait_sound(), *self.private_playback.stop()]

    def stop_wait_sound(self) -> Outputs:
        out: Outputs = []
        self.wait_sound_retry_at = None
        if self.player is not None:
            out += self.player.stop()
            self.player = None
        if self.music:
            self.music = False
            out.append(StopMusic(self.channel_id))
        return out

    def handle_playback_event(self, event: Event, now: int) -> Outputs:
        players = [p for p in (self.player, self.private_playback.player) if p is not None]
        awaited = isinstance(event, SoundFailed) and any(p.playback_id == event.playback_id for p in players)
        out: Outputs = [self.problem(event.kind, event.reason)] if isinstance(event, SoundFailed) and awaited else []
        out += self.private_playback.handle_event(event, now)
        if self.player is None:
            return out
        out += self.player.handle_event(event, now)
        if self.player.done and self.state is ON_HOLD:
            # None of the hold sound could be played: fall back to the default music.
            self.player = self.hold_url = None
        elif self.player.done:
            # Spec: "asked for again only when the document held no sound". None of its sounds could be played.
            self.player, self.wait_sound.items, self.wait_sound_retry_at = None, None, now + WAIT_SOUND_RETRY_MS
        return out

    # Sound documents.

    def request_sound(self, sound: ConferenceSound) -> Outputs:
        if sound.url is None or sound.request_pending or sound.items is not None:
            return []
        sound.request_pending = True
        sound.request_count += 1
        params = (("ConferenceName", self.element.name), ("ConferenceAction", sound.action))
        return [SoundDocumentRequested(self.call_uuid, self._fetch_id(sound), sound.url, params)]

    def _fetch_id(self, sound: ConferenceSound) -> str:
        return ids.for_member(self.conference_id, self.member_id, sound.action, sound.request_count)

    def pending_sound(self, fetch_id: str) -> ConferenceSound | None:
        """Return the sound that this fetch result belongs to, or None if no sound awaits it."""
        for sound in (self.enter_sound, self.exit_sound, self.wait_sound):
            if sound.request_pending and fetch_id == self._fetch_id(sound):
                return sound
        return None

    def on_sound_fetched(self, sound: ConferenceSound, items: tuple[Prompt, ...], now: int) -> None:
        sound.request_pending, sound.items = False, items
        if sound is self.wait_sound and not items:
            sound.items, self.wait_sound_retry_at = None, now + WAIT_SOUND_RETRY_MS

    def on_sound_failed(self, sound: ConferenceSound) -> None:
        # Spec: "A fetch that fails means no sound (waiting for the start: default music) and a warning."
        sound.request_pending, sound.items = False, ()

    # Recovery.

    @property
    def may_be_in_bridge(self) -> bool:
        return self.state in (ENTERING_BRIDGE, IN_BRIDGE, LEAVING_FOR_HOLD, LEAVING)

    def expectations(self, bridge_id: str) -> Iterator[Expectation]:
        """Yield what the member expects of Asterisk: see `expectations.py`."""
        about = Expectation("member", self.channel_id, self.channel_id, bridge_id, turn=self.additions)
        if self.state is ENTERING_BRIDGE or (self.state is IN_BRIDGE and self.reentering):
            entered = ChannelEnteredBridge(self.channel_id, bridge_id)
            # A server that takes over adds a re-entering channel again, and receives the event of that.
            yield about._replace(if_there=entered, confirmed_started=not self.reentering)
        elif self.may_be_in_bridge:
            left = ChannelLeftBridge(self.channel_id, bridge_id)
            yield about._replace(if_gone=left, already_decided=self.state is LEAVING and self.reason is not None)
        else:
            yield about._replace(kind="outside")
        for player in self._players():
            yield from player.expectations()

    def resume(self, bridge_id: str, there: AsteriskState) -> Outputs:
        """Return the effects in progress, which may have been lost with the previous process."""
        is_in = self.channel_id in there.bridges.get(bridge_id, ())
        out: Outputs = []
        if (self.state is ENTERING_BRIDGE and not is_in) or (self.state is IN_BRIDGE and self.reentering):
            out.append(AddChannel(self.channel_id, bridge_id, self.member_id))
        if self.state in (LEAVING_FOR_HOLD, LEAVING) and is_in:
            out.append(RemoveChannel(self.channel_id, bridge_id, self.member_id))
        # Asterisk doesn't report which channels are muted.
        if self.silenced:
            out.append(MuteChannel(self.channel_id, True))
        if self.deaf and self.state is not ON_HOLD:
            out.append(DeafenChannel(self.channel_id, True))
        if self.talk_detection_on:
            out.append(DetectTalking(self.channel_id, FLOOR_SILENCE_MS))
        if self.music:
            out.append(StartMusic(self.channel_id))
        for sound in (self.enter_sound, self.exit_sound, self.wait_sound):
            if sound.request_pending:
                sound.request_pending = False
                out += self.request_sound(sound)
        for player in self._players():
            out += player.resume(there)
        return out

    def _players(self) -> list[Player]:
        return [player for player in (self.player, self.private_playback.player) if player is not None]


def schedule_digits(send_digits: str, now: int) -> tuple[tuple[int, str], ...]:
    """Return sendDigits as (epoch milliseconds, digits). Spec: "`w` = 0.5 s, `W` = 1 s"."""
    runs: list[tuple[int, str]] = []
    at, run = now, ""
    for c in send_digits + "w":
        if c not in "wW":
            run += c
            continue
        if run:
            runs.append((at, run))
        run, at = "", at + (500 if c == "w" else 1000)
    return tuple(runs)
