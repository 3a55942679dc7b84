"""A member of a conference: what he hears while he waits, the sounds he brings, the digits he presses."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from ari_conf.core import ids
from ari_conf.core.aside import Aside
from ari_conf.core.digits import Matcher
from ari_conf.core.effects import ReportProblem, StartMusic, StopMusic, Target
from ari_conf.core.elements import Conference as Element
from ari_conf.core.elements import Play, Prompt
from ari_conf.core.events import Event, SoundFailed
from ari_conf.core.internal import Fetch, Out
from ari_conf.core.player import Player

ASK_AGAIN_MS = 5000
"""A wait sound's document without a sound is asked for again, but not more often than this (decided)."""

State = Literal["arriving", "waiting", "joining", "adding", "mixed", "parting", "held", "leaving"]
"""arriving: the conference's name is being claimed. waiting: for its start. joining: for its bridge. adding:
AddChannel is under way. mixed: he is in the bridge. parting: on his way out of it, to be held. held: out of it, with
music, and still a member. leaving: he is on his way out of the conference."""

Reason = Literal["hangup", "star", "kick", "api_hangup", "time_limit", "host_left", "left_alone", "conference_ended"]


@cache
def _beep(name: str) -> tuple[Prompt, ...]:
    return (Play(name),)


@dataclass(slots=True)
class Sounds:
    """An enter, exit or wait sound: known at once (a beep, none), or to be fetched."""

    action: Literal["enterSound", "exitSound", "waitSound"]
    url: str | None = None
    """What to ask; None: there is nothing to ask."""
    items: tuple[Prompt, ...] | None = None
    """None: not known (yet)."""
    asked: int = 0
    """How often it was asked for: part of the request's id."""
    asking: bool = False

    @classmethod
    def of(cls, action: Literal["enterSound", "exitSound", "waitSound"], attribute: str | None) -> Sounds:
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
    """Of the recording, should his element be the one that starts it."""
    matcher: Matcher
    enter_sound: Sounds
    exit_sound: Sounds
    wait_sound: Sounds
    wideband: bool = False
    muted: bool = False
    deaf: bool = False
    state: State = "arriving"
    reason: Reason | None = None
    """Why he leaves."""
    additions: int = 0
    """How often Asterisk was asked to add the channel to the bridge."""
    leaving_until: int | None = None
    """When Asterisk is asked again to take the channel out of the bridge."""
    removals: int = 0
    """How often it was asked again."""
    stuck: bool = False
    """Asterisk could not do it: the channel is muted and deafened until it is out."""
    outside: bool = False
    """Asterisk has said that the channel is not in the bridge."""
    player: Player | None = None
    """His wait sound."""
    music: bool = False
    """The default music is on."""
    ask_again_at: int | None = None
    rounds: int = 0
    """Wait sounds started: part of their playbacks' ids."""
    detected: bool = False
    """Asterisk tells when he talks."""
    talking: bool = False
    talking_at: int = 0
    """Since when."""
    enter_due: bool = False
    """His enter sound is to be played as soon as he is in and it is known."""
    sending: tuple[tuple[int, str], ...] = ()
    """sendDigits: when, which."""
    been_in: bool = False
    """In the bridge, once at least."""
    on_hold: bool = False
    """The phone has put us on hold: nothing that it sends is heard."""
    restarted: bool = False
    """The phone's stream has begun over, and Asterisk may drop its packets until the channel has left the bridge and
    entered it again: it is to, as soon as nothing is played to it alone."""
    reentering: bool = False
    """Asterisk was asked to let it leave and enter again."""
    held: bool = False
    """The API wants it: from the conference's start on he is out of the bridge, and hears music."""
    hold_url: str | None = None
    """None: the default music."""
    aside: Aside = field(default_factory=Aside)

    @classmethod
    def of(
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
            Matcher(element.digits_match),
            Sounds.of("enterSound", element.enter_sound),
            Sounds.of("exitSound", element.exit_sound),
            Sounds.of("waitSound", element.wait_sound),
            muted=element.muted,
        )

    @property
    def present(self) -> bool:
        """Admitted, and not on his way out."""
        return self.state != "arriving" and self.state != "leaving"

    @property
    def silenced(self) -> bool:
        """Nothing from the channel is to be heard in the conference."""
        return self.muted or self.on_hold

    @property
    def at_rest(self) -> bool:
        """Nothing is played to him alone, nor to be."""
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

    # What he hears while he waits.

    def wait(self, conference: str, now: int) -> Out:
        """His own waitSound; without one the default music before the start, silence when alone after it."""
        sound = self.wait_sound
        if self.player is not None or self.music or sound.asking or self.ask_again_at is not None:
            return []
        if sound.items is None:
            return self.ask(sound, conference)
        if sound.items:
            self.rounds += 1
            owner = ids.for_member(self.conference_id, self.member_id, "wait", self.rounds)
            self.player = Player(owner, Target("channel", self.channel_id), sound.items, endless=True)
            return [*self.player.start(now)]
        if self.state == "mixed":
            return []
        self.music = True
        return [StartMusic(self.channel_id)]

    def hold(self, now: int) -> Out:
        """The sound that the API named, again and again; without one the default music."""
        if self.player is not None or self.music:
            return []
        if self.hold_url is None:
            self.music = True
            return [StartMusic(self.channel_id)]
        self.rounds += 1
        owner = ids.for_member(self.conference_id, self.member_id, "hold", self.rounds)
        self.player = Player(owner, Target("channel", self.channel_id), (Play(self.hold_url),), endless=True)
        return [*self.player.start(now)]

    def speak_aside(self, now: int) -> Out:
        if self.aside.player is None and not self.aside.queue:
            return []
        owner = ids.for_member(self.conference_id, self.member_id, "aside")
        # Nor to one whose call is not answered yet, or who is on his way.
        may_play = self.state in ("waiting", "mixed", "held")
        return [*self.aside.settle(owner, Target("channel", self.channel_id), may_play, now)]

    def fall_silent(self) -> Out:
        """Nothing is played to him any more."""
        return [] if self.at_rest else [*self.stop_waiting(), *self.aside.stop()]

    def stop_waiting(self) -> Out:
        out: Out = []
        self.ask_again_at = None
        if self.player is not None:
            out += self.player.stop()
            self.player = None
        if self.music:
            self.music = False
            out.append(StopMusic(self.channel_id))
        return out

    def playback(self, event: Event, now: int) -> Out:
        players = [p for p in (self.player, self.aside.player) if p is not None]
        awaited = isinstance(event, SoundFailed) and any(p.playback_id == event.playback_id for p in players)
        out: Out = [self.problem(event.reason)] if isinstance(event, SoundFailed) and awaited else []
        out += self.aside.receive(event, now)
        if self.player is None:
            return out
        out += self.player.receive(event, now)
        if self.player.done and self.state == "held":
            # Nothing of it could be heard: the default music then.
            self.player = self.hold_url = None
        elif self.player.done:
            # "asked for again only when the document held no sound": nothing of it could be heard.
            self.player, self.wait_sound.items, self.ask_again_at = None, None, now + ASK_AGAIN_MS
        return out

    # Sound documents.

    def ask(self, sound: Sounds, conference: str) -> Out:
        if sound.url is None or sound.asking or sound.items is not None:
            return []
        sound.asking = True
        sound.asked += 1
        fetch_id = ids.for_member(self.conference_id, self.member_id, sound.action, sound.asked)
        params = (("ConferenceName", conference), ("ConferenceAction", sound.action))
        return [Fetch(self.call_uuid, fetch_id, sound.url, params)]

    def asked(self, fetch_id: str) -> Sounds | None:
        """The sound that this answer is for; None: it is not awaited."""
        _, _, _, action, number = fetch_id.split(".")
        for sound in (self.enter_sound, self.exit_sound, self.wait_sound):
            if sound.action == action and sound.asking and str(sound.asked) == number:
                return sound
        return None

    def fetched(self, sound: Sounds, items: tuple[Prompt, ...], now: int) -> None:
        sound.asking, sound.items = False, items
        if sound is self.wait_sound and not items:
            sound.items, self.ask_again_at = None, now + ASK_AGAIN_MS

    def not_fetched(self, sound: Sounds) -> None:
        # "A fetch that fails means no sound (waiting for the start: default music) and a warning."
        sound.asking, sound.items = False, ()


def schedule(send_digits: str, now: int) -> tuple[tuple[int, str], ...]:
    """sendDigits as (when, digits): "`w` = 0.5 s, `W` = 1 s"."""
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
