"""Member of a conference: its state, wait, hold, private, enter and exit sounds, and digits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from ari_conf.core import ids
from ari_conf.core.conferences.digit_matching import DigitMatcher
from ari_conf.core.effects import (
    AddChannel,
    DeafenChannel,
    DetectTalking,
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

FLOOR_SILENCE_MS = 500
"""Milliseconds of silence that end talking."""
WAIT_SOUND_RETRY_MS = 5000
"""Minimum milliseconds before a wait-sound document that contained no sound is requested again (decided)."""

State = Literal["arriving", "waiting", "joining", "adding", "mixed", "parting", "held", "leaving"]
"""arriving: the conference name is being claimed. waiting: for the conference to start. joining: for the bridge to
exist. adding: AddChannel is in progress. mixed: in the bridge. parting: leaving the bridge to go on hold. held: out of
the bridge, hearing music, still a member. leaving: leaving the conference."""

ExitReason = Literal[
    "hangup", "star", "kick", "api_hangup", "time_limit", "host_left", "left_alone", "conference_ended"
]


@cache
def _beep(name: str) -> tuple[Prompt, ...]:
    return (Play(name),)


@dataclass(slots=True)
class ConferenceSound:
    """Enter, exit or wait sound: known immediately (a beep, or none), or fetched from a URL."""

    action: Literal["enterSound", "exitSound", "waitSound"]
    url: str | None = None
    """URL of the sound document; None: there is nothing to fetch."""
    items: tuple[Prompt, ...] | None = None
    """Sounds to play; None: not known (yet)."""
    asked: int = 0
    """Number of requests for the document so far: part of the request's id."""
    asking: bool = False

    @classmethod
    def of(cls, action: Literal["enterSound", "exitSound", "waitSound"], attribute: str | None) -> ConferenceSound:
        if attribute is None:
            return cls(action, items=())
        if attribute.startswith("beep:"):
            return cls(action, items=_beep(attribute))
        return cls(action, url=attribute)


@dataclass(slots=True)
class Member:
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
    state: State = "arriving"
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
    ask_again_at: int | None = None
    rounds: int = 0
    """Number of wait and hold sounds started so far: part of their playback ids."""
    detected: bool = False
    """True if Asterisk reports when the member talks."""
    talking: bool = False
    talking_at: int = 0
    """Epoch milliseconds since which the member talks."""
    enter_due: bool = False
    """True if the enter sound is to be played as soon as the member is in the bridge and the sound is known."""
    sending: tuple[tuple[int, str], ...] = ()
    """Remaining sendDigits as (epoch milliseconds, digits)."""
    been_in: bool = False
    """True once the member has been in the bridge."""
    on_hold: bool = False
    """True while the member's phone has put the call on hold: nothing that the phone sends is heard."""
    restarted: bool = False
    """True if the phone's RTP stream has restarted: Asterisk may drop its packets until the channel has left the bridge
    and re-entered it. The channel does so as soon as nothing is played to it alone."""
    reentering: bool = False
    """True while the channel leaves the bridge and re-enters it at the server's request."""
    held: bool = False
    """True while the API keeps the member on hold: from the conference start on, out of the bridge, hearing music."""
    hold_url: str | None = None
    """URL of the hold sound; None: the default music."""
    aside: PrivatePlayback = field(default_factory=PrivatePlayback)

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
        return self.state != "arriving" and self.state != "leaving"

    @property
    def silenced(self) -> bool:
        """Return True if nothing from the channel may be heard in the conference."""
        return self.muted or self.on_hold

    @property
    def is_silent(self) -> bool:
        """Return True if nothing is played to this member alone, or about to be."""
        return not (self.player or self.music or self.ask_again_at or self.aside.queue)

    @property
    def deadline(self) -> int | None:
        aside = self.aside.player
        waits = self.leaving_until or self.ask_again_at or self.matcher.deadline
        if not (waits or self.player or aside or self.sending):
            return None
        times = [self.leaving_until, self.ask_again_at, self.matcher.deadline]
        times.append(self.player.deadline if self.player else None)
        times.append(aside.deadline if aside else None)
        times.append(self.sending[0][0] if self.sending else None)
        return min((t for t in times if t is not None), default=None)

    def problem(self, text: str) -> ReportProblem:
        return ReportProblem(self.auth_id, self.call_uuid, None, text)

    # Wait, hold and private sounds.

    def play_wait_sound(self, conference: str, now: int) -> Outputs:
        """Play the member's waitSound; without one, default music before the start, silence when alone after it."""
        sound = self.wait_sound
        if self.player is not None or self.music or sound.asking or self.ask_again_at is not None:
            return []
        if sound.items is None:
            return self.request_sound(sound, conference)
        if sound.items:
            self.rounds += 1
            owner = ids.for_member(self.conference_id, self.member_id, "wait", self.rounds)
            self.player = Player(owner, Target("channel", self.channel_id), sound.items, endless=True)
            return [*self.player.start(now)]
        if self.state == "mixed":
            return []
        self.music = True
        return [StartMusic(self.channel_id)]

    def play_hold_sound(self, now: int) -> Outputs:
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

    def update_private_playback(self, now: int) -> Outputs:
        if self.aside.player is None and not self.aside.queue:
            return []
        owner = ids.for_member(self.conference_id, self.member_id, "aside")
        # Nothing may play before the call is answered, or while the channel is being moved.
        may_play = self.state in ("waiting", "mixed", "held")
        return [*self.aside.update(owner, Target("channel", self.channel_id), may_play, now)]

    def stop_all_sounds(self) -> Outputs:
        """Stop everything that is played to this member alone."""
        return [] if self.is_silent else [*self.stop_wait_sound(), *self.aside.stop()]

    def stop_wait_sound(self) -> Outputs:
        out: Outputs = []
        self.ask_again_at = None
        if self.player is not None:
            out += self.player.stop()
            self.player = None
        if self.music:
            self.music = False
            out.append(StopMusic(self.channel_id))
        return out

    def handle_playback_event(self, event: Event, now: int) -> Outputs:
        players = [p for p in (self.player, self.aside.player) if p is not None]
        awaited = isinstance(event, SoundFailed) and any(p.playback_id == event.playback_id for p in players)
        out: Outputs = [self.problem(event.reason)] if isinstance(event, SoundFailed) and awaited else []
        out += self.aside.handle_event(event, now)
        if self.player is None:
            return out
        out += self.player.handle_event(event, now)
        if self.player.done and self.state == "held":
            # None of the hold sound could be played: fall back to the default music.
            self.player = self.hold_url = None
        elif self.player.done:
            # Spec: "asked for again only when the document held no sound". None of its sounds could be played.
            self.player, self.wait_sound.items, self.ask_again_at = None, None, now + WAIT_SOUND_RETRY_MS
        return out

    # Sound documents.

    def request_sound(self, sound: ConferenceSound, conference: str) -> Outputs:
        if sound.url is None or sound.asking or sound.items is not None:
            return []
        sound.asking = True
        sound.asked += 1
        params = (("ConferenceName", conference), ("ConferenceAction", sound.action))
        return [SoundDocumentRequested(self.call_uuid, self._fetch_id(sound), sound.url, params)]

    def _fetch_id(self, sound: ConferenceSound) -> str:
        return ids.for_member(self.conference_id, self.member_id, sound.action, sound.asked)

    def pending_sound(self, fetch_id: str) -> ConferenceSound | None:
        """Return the sound that this fetch result belongs to, or None if no sound awaits it."""
        for sound in (self.enter_sound, self.exit_sound, self.wait_sound):
            if sound.asking and fetch_id == self._fetch_id(sound):
                return sound
        return None

    # Recovery.

    @property
    def may_be_in_bridge(self) -> bool:
        return self.state in ("adding", "mixed", "parting", "leaving")

    def expectations(self, bridge_id: str) -> Iterator[Expectation]:
        """Yield what the member expects of Asterisk: see `expectations.py`."""
        about = Expectation("member", self.channel_id, self.channel_id, bridge_id, turn=self.additions)
        if self.state == "adding" or (self.state == "mixed" and self.reentering):
            entered = ChannelEnteredBridge(self.channel_id, bridge_id)
            # A server that takes over adds a re-entering channel again, and receives the event of that.
            yield about._replace(if_there=entered, confirmed_started=not self.reentering)
        elif self.may_be_in_bridge:
            left = ChannelLeftBridge(self.channel_id, bridge_id)
            yield about._replace(if_gone=left, already_decided=self.state == "leaving" and self.reason is not None)
        else:
            yield about._replace(kind="outside")
        for player in self._players():
            yield from player.expectations()

    def resume(self, bridge_id: str, there: AsteriskState) -> Outputs:
        """Return the effects in progress, which may have been lost with the previous process."""
        is_in = self.channel_id in there.bridges.get(bridge_id, ())
        out: Outputs = []
        if (self.state == "adding" and not is_in) or (self.state == "mixed" and self.reentering):
            out.append(AddChannel(self.channel_id, bridge_id, self.member_id))
        if self.state in ("parting", "leaving") and is_in:
            out.append(RemoveChannel(self.channel_id, bridge_id, self.member_id))
        # Asterisk doesn't report which channels are muted.
        if self.silenced:
            out.append(MuteChannel(self.channel_id, True))
        if self.deaf and self.state != "held":
            out.append(DeafenChannel(self.channel_id, True))
        if self.detected:
            out.append(DetectTalking(self.channel_id, FLOOR_SILENCE_MS))
        if self.music:
            out.append(StartMusic(self.channel_id))
        for sound in (self.enter_sound, self.exit_sound, self.wait_sound):
            if sound.asking:
                sound.asking = False
                out += self.request_sound(sound, self.element.name)
        for player in self._players():
            out += player.resume(there)
        return out

    def _players(self) -> list[Player]:
        return [player for player in (self.player, self.aside.player) if player is not None]

    def on_sound_fetched(self, sound: ConferenceSound, items: tuple[Prompt, ...], now: int) -> None:
        sound.asking, sound.items = False, items
        if sound is self.wait_sound and not items:
            sound.items, self.ask_again_at = None, now + WAIT_SOUND_RETRY_MS

    def on_sound_failed(self, sound: ConferenceSound) -> None:
        # Spec: "A fetch that fails means no sound (waiting for the start: default music) and a warning."
        sound.asking, sound.items = False, ()


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
