"""Player: plays Play, Speak and Wait sequentially to a channel or a bridge.

It serves the elements of a document, the prompt of GetDigits, wait and hold sounds, private playback, announcements,
and enter and exit sounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum

import msgspec

from ari_conf.core import ids
from ari_conf.core.effects import DetectBeep, DetectTalking, Effect, PlayMedia, PrepareSound, StopPlayback, Target
from ari_conf.core.elements import Play, Prompt, Speak, Wait
from ari_conf.core.events import (
    AudioStopped,
    BeepHeard,
    DeadlineReached,
    EffectFailed,
    Event,
    PlaybackFinished,
    PlaybackStarted,
    SoundFailed,
    SoundPrepared,
    StreamSeen,
    TalkingFinished,
    TalkingStarted,
)
from ari_conf.core.expectations import AsteriskState, Expectation

RAPID_REPEAT_MS, MAX_RAPID_REPEATS = 200, 10
"""Limit for short sounds: after MAX_RAPID_REPEATS repetitions in a row of less than RAPID_REPEAT_MS, each repetition
waits for that time (decided). Otherwise, a sound of one millisecond with loop="0" would keep Asterisk busy for as long
as the call lasts."""
LOOP_GAP_MS = 750
"""Pause of an endless player. Spec: waitSound loops "with 750 ms of silence before each repetition"."""


class PlayerState(StrEnum):
    NEW = "new"
    """Not started."""
    PREPARING = "preparing"
    """PrepareSound is in progress."""
    PLAYING = "playing"
    """PlayMedia is in progress, or Asterisk plays."""
    WAITING = "waiting"
    """A Wait runs."""
    HELD = "held"
    """A sound is to be played, or was interrupted: it is played once the player is released."""
    PAUSING = "pausing"
    """A pause before a repetition: LOOP_GAP_MS or RAPID_REPEAT_MS."""
    DONE = "done"
    """Nothing is left to play, or the player was stopped."""


NEW, PREPARING, PLAYING, WAITING, HELD, PAUSING, DONE = PlayerState
"""The states as constants, because an access by the class takes ten times as long."""


class Player(msgspec.Struct, tag=True):
    owner: str
    """Prefix of the player's playback ids."""
    target: Target
    items: tuple[Prompt, ...]
    endless: bool = False
    detects_audio: bool = False
    """True if a Wait may end by what the caller says or by a beep; otherwise it is just a pause."""
    state: PlayerState = NEW
    position: int = 0
    """Index of the current item."""
    repeat_count: int = 0
    """Number of times that the current item has been played."""
    media: str = ""
    """Media URI of the current item, once it is prepared."""
    count: int = 0
    """Number of playbacks so far: part of their ids."""
    played_at: int = 0
    """Epoch milliseconds of the last PlayMedia."""
    rapid_repeats: int = 0
    """Number of repetitions in a row that lasted less than RAPID_REPEAT_MS."""
    confirmed_started: bool = False
    """True if Asterisk has reported the start of the playback. If the playback no longer exists, it has therefore ended
    and was not lost before it started."""
    until: int | None = None
    """Epoch milliseconds at which the Wait or the pause ends."""
    quiet_until: int | None = None
    """Epoch milliseconds at which a Wait with silence="true" ends unless the caller talks."""
    played_any: bool = False
    """True if a sound of this round has been played."""
    call_uuid: str = ""
    """UUID of the call that brought a conference's sound; it gets the problem if the sound can't be played."""
    held: bool = False
    """True while the player plays nothing, because the API plays a sound to the channel. A Wait goes on."""
    heard_since: int = 0
    """Epoch milliseconds since which the current playback is audible, once Asterisk has reported its start."""
    offset_ms: int = 0
    """Milliseconds of the current sound that were heard before an interruption."""

    @property
    def playback_id(self) -> str:
        return f"{self.owner}.{self.count}"

    @property
    def done(self) -> bool:
        return self.state is DONE

    @property
    def deadline(self) -> int | None:
        if self.until is None or self.quiet_until is None:
            return self.quiet_until if self.until is None else self.until
        return min(self.until, self.quiet_until)

    @property
    def silence_ms(self) -> int | None:
        """Return the milliseconds of silence that end the current Wait, or None if no silence is awaited."""
        item = self._current() if self._waits_for_silence() else None
        return item.min_silence if isinstance(item, Wait) else None

    @property
    def hears_talking(self) -> bool:
        """Return True if the current Wait waits for the end of what the caller says."""
        return self._waits_for_silence() and self.quiet_until is None

    def start(self, now: int) -> list[Effect]:
        return self._start_item(now)

    def stop(self) -> list[Effect]:
        effects: list[Effect] = []
        if self.state is PLAYING:
            effects.append(StopPlayback(self.target, self.playback_id))
        effects += self._stop_detection()
        self.state, self.until, self.quiet_until = DONE, None, None
        return effects

    def hold(self, now: int) -> list[Effect]:
        """Interrupt the sound, if one plays, and play none until `release`."""
        self.held = True
        if self.state is not PLAYING:
            return []
        if self.confirmed_started:
            self.offset_ms += max(0, now - self.heard_since)
        self.state = HELD
        return [StopPlayback(self.target, self.playback_id)]

    def release(self, now: int) -> list[Effect]:
        """Continue where `hold` interrupted the sound."""
        self.held = False
        if self.state is not HELD:
            return []
        self.count += 1
        return self._play(now)

    def handle_event(self, event: Event, now: int) -> list[Effect]:
        match event:
            case SoundPrepared(playback_id, media) if self._is_at(PREPARING, playback_id):
                self.media = media
                return self._play(now)
            case SoundFailed(playback_id) if self._is_at(PREPARING, playback_id):
                return self._next_item(now)
            case PlaybackStarted(playback_id) if self._is_at(PLAYING, playback_id):
                if not self.confirmed_started:
                    self.confirmed_started, self.heard_since = True, now
            case PlaybackFinished(playback_id, failed) if self._is_at(PLAYING, playback_id):
                return self._on_played(failed, now)
            case EffectFailed(PlayMedia(_, playback_id)) if self._is_at(PLAYING, playback_id):
                return self._on_played(True, now)
            case DeadlineReached() if self.deadline is not None and self.deadline <= now:
                return self._start_item(now) if self.state is PAUSING else self._on_wait_ended(now)
            case TalkingStarted() if self.quiet_until is not None:
                self.quiet_until = None
            case TalkingFinished() if self._waits_for_silence() and self.quiet_until is None:
                # The talking began during this Wait: this is not a late event about earlier talking.
                return self._on_wait_ended(now)
            case AudioStopped(_, for_ms) if self._waits_for_silence() and self.quiet_until is None:
                return self._on_silent_since(now - for_ms, now)
            case StreamSeen() if self._waits_for_silence():
                # Asterisk's talk detection may not receive the new RTP stream.
                return self._on_silent_since(now, now)
            case BeepHeard() if self._waits_for_beep():
                return self._on_wait_ended(now)
        return []

    def _is_at(self, state: PlayerState, playback_id: str) -> bool:
        return self.state is state and playback_id == self.playback_id

    def _current(self) -> Prompt:
        return self.items[self.position]

    def _waits_for_silence(self) -> bool:
        if self.state is not WAITING:
            return False
        item = self._current()
        return isinstance(item, Wait) and item.silence and self.detects_audio

    def _waits_for_beep(self) -> bool:
        if self.state is not WAITING:
            return False
        item = self._current()
        # Spec: "ends at a voicemail beep (only without silence)"
        return isinstance(item, Wait) and item.beep and not item.silence and self.detects_audio

    def _start_item(self, now: int) -> list[Effect]:
        """Start the current item, or end the round if no item is left."""
        self.until = None
        if self.position >= len(self.items):
            return self._on_round_ended(now)
        item = self._current()
        if isinstance(item, Wait):
            return self._wait(item, now)
        self.count += 1
        self.offset_ms = 0
        if self.media:
            return self._play(now)
        self.state = PREPARING
        return [self._preparation()]

    def _preparation(self) -> PrepareSound:
        sound = self._current()
        assert isinstance(sound, Play | Speak)
        return PrepareSound(self.playback_id, sound)

    def repeat_effects(self) -> list[Effect]:
        return [PlayMedia(self.target, self.playback_id, (self.media,), self.offset_ms)]

    # Recovery.

    def expectations(self) -> Iterator[Expectation]:
        """Yield what the player expects of Asterisk: see `expectations.py`."""
        if self.state is PLAYING:
            over, heard = PlaybackFinished(self.playback_id), PlaybackStarted(self.playback_id)
            about = Expectation("playback", self.playback_id, self.target.id, if_gone=over)
            yield about if self.confirmed_started else about._replace(if_there=heard, confirmed_started=False)

    def resume(self, there: AsteriskState) -> list[Effect]:
        """Return the effects in progress, which may have been lost with the previous process."""
        if self.state is WAITING:
            return self._detection()
        if self.state is PREPARING:
            return [self._preparation()]
        unconfirmed = self.state is PLAYING and not self.confirmed_started
        return self.repeat_effects() if unconfirmed and self.playback_id not in there.playbacks else []

    def _play(self, now: int) -> list[Effect]:
        if self.held:
            self.state = HELD
            return []
        self.state, self.confirmed_started, self.played_at = PLAYING, False, now
        return self.repeat_effects()

    def _on_played(self, failed: bool, now: int) -> list[Effect]:
        item = self._current()
        assert isinstance(item, Play | Speak)
        self.played_any = self.played_any or not failed
        self.repeat_count += 1
        if failed or (item.loop != 0 and self.repeat_count >= item.loop):
            return self._next_item(now)
        self.rapid_repeats = self.rapid_repeats + 1 if now - self.played_at < RAPID_REPEAT_MS else 0
        if self.rapid_repeats < MAX_RAPID_REPEATS:
            return self._start_item(now)
        self.state, self.until = PAUSING, now + RAPID_REPEAT_MS
        return []

    def _wait(self, item: Wait, now: int) -> list[Effect]:
        self.state, self.until = WAITING, now + item.length * 1000
        if self._waits_for_silence():
            self.quiet_until = now + item.min_silence
        return self._detection()

    def _detection(self) -> list[Effect]:
        """Return the effects that switch on what the current Wait listens for."""
        if self._waits_for_silence():
            return [DetectTalking(self.target.id, self.silence_ms)]
        return [self._detect_beep(True)] if self._waits_for_beep() else []

    def _on_wait_ended(self, now: int) -> list[Effect]:
        return self._stop_detection() + self._next_item(now)

    def _on_silent_since(self, since: int, now: int) -> list[Effect]:
        """End the Wait if the silence since `since` is long enough; otherwise restart talk detection. Asterisk has not
        noticed the silence: it still considers the caller to be talking and would not report the next talking."""
        ends_at = since + (self.silence_ms or 0)
        if ends_at <= now:
            return self._on_wait_ended(now)
        self.quiet_until = ends_at
        return [DetectTalking(self.target.id, None), DetectTalking(self.target.id, self.silence_ms)]

    def _stop_detection(self) -> list[Effect]:
        if self._waits_for_silence():
            return [DetectTalking(self.target.id, None)]
        return [self._detect_beep(False)] if self._waits_for_beep() else []

    def _detect_beep(self, on: bool) -> DetectBeep:
        return DetectBeep(self.target.id, on, ids.call_of(self.owner) or "")

    def _next_item(self, now: int) -> list[Effect]:
        self.position, self.repeat_count, self.media, self.quiet_until = self.position + 1, 0, "", None
        return self._start_item(now)

    def _on_round_ended(self, now: int) -> list[Effect]:
        """Start another round if the player is endless and played a sound, else finish. After an endless player that
        played nothing, its owner requests the sound document again or plays music."""
        if not self.endless or not self.played_any:
            self.state = DONE
            return []
        self.state, self.position, self.played_any, self.until = PAUSING, 0, False, now + LOOP_GAP_MS
        return []


def interrupted(players: Sequence[Player | None], effect: Effect, now: int) -> list[Effect]:
    """Return the effect, between the end of the sound that one of the players plays and its continuation."""
    playing = next((p for p in players if p is not None and p.state is PLAYING), None)
    return [effect] if playing is None else [*playing.hold(now), effect, *playing.release(now)]
