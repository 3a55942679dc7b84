"""Plays Play, Speak and Wait one after another to a channel or to a bridge.

One piece for four uses: elements of a document, the prompt of GetDigits, wait sounds, enter and exit sounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ari_conf.core.effects import DetectBeep, DetectTalking, Effect, PlayMedia, PrepareSound, StopPlayback, Target
from ari_conf.core.elements import Play, Prompt, Speak, Wait
from ari_conf.core.events import (
    AudioStopped,
    BeepHeard,
    EffectFailed,
    Event,
    PlaybackFinished,
    PlaybackStarted,
    SoundFailed,
    SoundPrepared,
    StreamSeen,
    TalkingFinished,
    TalkingStarted,
    TimePassed,
)

SHORT_MS, MOST_SHORT = 200, 10
"""A sound that is over sooner than that, so often in a row, waits before it is played again: one of a thousandth of a
second with loop="0" would keep Asterisk busy for as long as the call lasts (decided)."""
GAP_MS = 750
"""waitSound loops "with 750 ms of silence before each repetition"."""


@dataclass(slots=True)
class Player:
    owner: str
    """The ids of its playbacks begin with it."""
    target: Target
    items: tuple[Prompt, ...]
    endless: bool = False
    state: Literal["new", "preparing", "playing", "waiting", "gap", "done"] = "new"
    position: int = 0
    turn: int = 0
    """How often the current item was played."""
    media: str = ""
    """The current item's, once it is prepared."""
    count: int = 0
    played_at: int = 0
    short: int = 0
    """Turns in a row that were over at once."""
    begun: bool = False
    """The playback has been heard to begin: if it is there no more it has ended, and was not lost before it began."""
    until: int | None = None
    quiet_until: int | None = None
    """Wait silence="true": it ends then unless somebody talks."""
    heard: bool = False
    """A sound of this round was heard."""
    call_uuid: str = ""
    """Of a conference's sound: the call that brought it, whose problem it is if it can't be played."""

    @property
    def playback_id(self) -> str:
        return f"{self.owner}.{self.count}"

    @property
    def done(self) -> bool:
        return self.state == "done"

    @property
    def deadline(self) -> int | None:
        if self.until is None or self.quiet_until is None:
            return self.quiet_until if self.until is None else self.until
        return min(self.until, self.quiet_until)

    @property
    def silence_ms(self) -> int | None:
        """How much silence ends what it waits for; None: it does not wait for silence."""
        item = self._current() if self._waits_for_silence() else None
        return item.min_silence if isinstance(item, Wait) else None

    def start(self, now: int) -> list[Effect]:
        return self._begin(now)

    def stop(self) -> list[Effect]:
        effects: list[Effect] = []
        if self.state == "playing":
            effects.append(StopPlayback(self.target, self.playback_id))
        effects += self._stop_listening()
        self.state, self.until, self.quiet_until = "done", None, None
        return effects

    def receive(self, event: Event, now: int) -> list[Effect]:
        match event:
            case SoundPrepared(playback_id, media) if self.state == "preparing" and playback_id == self.playback_id:
                self.media = media
                return self._play(now)
            case SoundFailed(playback_id) if self.state == "preparing" and playback_id == self.playback_id:
                return self._next_item(now)
            case PlaybackStarted(playback_id) if self.state == "playing" and playback_id == self.playback_id:
                self.begun = True
            case PlaybackFinished(playback_id, failed) if self.state == "playing" and playback_id == self.playback_id:
                return self._played(failed, now)
            case EffectFailed(PlayMedia(_, playback_id)) if self.state == "playing" and playback_id == self.playback_id:
                return self._played(True, now)
            case TimePassed() if self.deadline is not None and self.deadline <= now:
                return self._begin(now) if self.state == "gap" else self._waited(now)
            case TalkingStarted() if self.quiet_until is not None:
                self.quiet_until = None
            case TalkingFinished() if self._waits_for_silence() and self.quiet_until is None:
                # The end of a talk that began in this wait; not late news of an earlier one.
                return self._waited(now)
            case AudioStopped(_, for_ms) if self._waits_for_silence() and self.quiet_until is None:
                return self._quiet_since(now - for_ms, now)
            case StreamSeen() if self._waits_for_silence():
                # Of the new stream Asterisk's detection may hear nothing.
                return self._quiet_since(now, now)
            case BeepHeard() if self._waits_for_beep():
                return self._waited(now)
        return []

    def _current(self) -> Prompt:
        return self.items[self.position]

    def _waits_for_silence(self) -> bool:
        if self.state != "waiting":
            return False
        item = self._current()
        return isinstance(item, Wait) and item.silence and self._listens

    def _waits_for_beep(self) -> bool:
        if self.state != "waiting":
            return False
        item = self._current()
        # "ends at a voicemail beep (only without silence)"
        return isinstance(item, Wait) and item.beep and not item.silence and self._listens

    @property
    def _listens(self) -> bool:
        # In a conference's sounds there is nobody to listen to: there a Wait is only a pause.
        return self.owner.startswith("c.")

    def _begin(self, now: int) -> list[Effect]:
        """The current item, or what comes when none is left."""
        self.until = None
        if self.position >= len(self.items):
            return self._round_ended(now)
        item = self._current()
        if isinstance(item, Wait):
            return self._wait(item, now)
        self.count += 1
        if self.media:
            return self._play(now)
        self.state = "preparing"
        return [PrepareSound(self.playback_id, item)]

    def again(self) -> list[Effect]:
        return [PlayMedia(self.target, self.playback_id, (self.media,))]

    def _play(self, now: int) -> list[Effect]:
        self.state, self.begun, self.played_at = "playing", False, now
        return self.again()

    def _played(self, failed: bool, now: int) -> list[Effect]:
        item = self._current()
        assert isinstance(item, Play | Speak)
        self.heard = self.heard or not failed
        self.turn += 1
        if failed or (item.loop != 0 and self.turn >= item.loop):
            return self._next_item(now)
        self.short = self.short + 1 if now - self.played_at < SHORT_MS else 0
        if self.short < MOST_SHORT:
            return self._begin(now)
        self.state, self.until = "gap", now + SHORT_MS
        return []

    def _wait(self, item: Wait, now: int) -> list[Effect]:
        self.state, self.until = "waiting", now + item.length * 1000
        if self._waits_for_silence():
            self.quiet_until = now + item.min_silence
            return [DetectTalking(self.target.id, item.min_silence)]
        return [DetectBeep(self.target.id, True)] if self._waits_for_beep() else []

    def _waited(self, now: int) -> list[Effect]:
        return self._stop_listening() + self._next_item(now)

    def _quiet_since(self, since: int, now: int) -> list[Effect]:
        """Asterisk has not noticed: it takes the caller for talking, and would not tell of the next talk."""
        ends_at = since + (self.silence_ms or 0)
        if ends_at <= now:
            return self._waited(now)
        self.quiet_until = ends_at
        return [DetectTalking(self.target.id, None), DetectTalking(self.target.id, self.silence_ms)]

    def _stop_listening(self) -> list[Effect]:
        if self._waits_for_silence():
            return [DetectTalking(self.target.id, None)]
        return [DetectBeep(self.target.id, False)] if self._waits_for_beep() else []

    def _next_item(self, now: int) -> list[Effect]:
        self.position, self.turn, self.media, self.quiet_until = self.position + 1, 0, "", None
        return self._begin(now)

    def _round_ended(self, now: int) -> list[Effect]:
        """Endless: once more, unless nothing could be heard; its owner then asks for the document again."""
        if not self.endless or not self.heard:
            self.state = "done"
            return []
        self.state, self.position, self.heard, self.until = "gap", 0, False, now + GAP_MS
        return []
