"""Record: plays a beep, records what the caller says, and decides when that is complete.

Silence and the maximum length are a Wait's: the player ends when the caller has been silent for `timeout` seconds, or
after `maxLength`.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from ari_conf.core.calls.call_recording import CallRecording
from ari_conf.core.effects import Effect, Target
from ari_conf.core.elements import Play, Record, Wait
from ari_conf.core.events import DigitReceived, Event
from ari_conf.core.playback.player import Player

BEEP = Play("beep:record")


class RecordState(StrEnum):
    BEEP = "beep"
    """The beep plays."""
    RECORDING = "recording"
    """The caller is recorded."""
    STOPPING = "stopping"
    """The end of the recording is awaited."""


class RecordRun(msgspec.Struct, tag=True):
    element: Record
    owner: str
    """Prefix of the ids of both players."""
    target: Target
    recording_id: str = ""
    """Empty until the recording has an id, within the step that starts the element."""
    pending: CallRecording | None = None
    """Recording that begins after the beep; None: it has begun."""
    state: RecordState = RecordState.BEEP
    player: Player | None = None
    """Player of the beep, or of the Wait for the end of what the caller says."""
    digits: str = ""
    """Key that ended the recording."""

    @property
    def deadline(self) -> int | None:
        return self.player.deadline if self.player is not None else None

    def start(self, now: int) -> list[Effect]:
        """Play the beep. Without one, the state is RECORDING at once."""
        if not self.element.play_beep:
            return self._listen(now)
        self.player = Player(f"{self.owner}.1", self.target, (BEEP,))
        return [*self.player.start(now), *self._after_player(now)]

    def stop(self) -> list[Effect]:
        player, self.player = self.player, None
        return player.stop() if player is not None else []

    def handle_event(self, event: Event, now: int) -> list[Effect]:
        if isinstance(event, DigitReceived) and event.digit in self.element.finish_on_key:
            return self._finish(event.digit) if self.state is RecordState.RECORDING else []
        if self.player is None:
            return []
        return [*self.player.handle_event(event, now), *self._after_player(now)]

    def take_pending(self) -> CallRecording | None:
        """Return the recording if it is to begin now: once."""
        recording = self.pending if self.state is RecordState.RECORDING else None
        self.pending = None if recording is not None else self.pending
        return recording

    def _after_player(self, now: int) -> list[Effect]:
        if self.player is None or not self.player.done:
            return []
        return self._listen(now) if self.state is RecordState.BEEP else self._finish("")

    def _listen(self, now: int) -> list[Effect]:
        self.state = RecordState.RECORDING
        end = Wait(self.element.max_length, silence=True, min_silence=self.element.timeout * 1000)
        self.player = Player(f"{self.owner}.2", self.target, (end,), detects_audio=True)
        return self.player.start(now)

    def _finish(self, digit: str) -> list[Effect]:
        self.state, self.digits = RecordState.STOPPING, digit
        return self.stop()
