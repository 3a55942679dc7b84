"""Private playback: sounds that the API plays to a single call or member, inside a conference or outside it,
sequentially."""

from __future__ import annotations

import msgspec

from ari_conf.core.effects import Effect, Target
from ari_conf.core.elements import Play, Speak
from ari_conf.core.events import DeadlineReached, Event, PlaybackStarted
from ari_conf.core.playback.player import Player
from ari_conf.core.queued_sound import QueuedSound, SoundList, is_of, sounds_of


class PrivatePlayback(msgspec.Struct):
    queue: list[QueuedSound] = msgspec.field(default_factory=list)
    """Sounds of which the first one is playing or next."""
    player: Player | None = None
    """Player of the sound that is playing, or about to."""
    count: int = 0
    """Number of sounds started so far: part of their playback ids."""
    ends_at: int | None = None
    """Epoch milliseconds at which the sound that is playing ends, if it has a `length`."""

    @property
    def deadline(self) -> int | None:
        deadline = self.player.deadline if self.player is not None else None
        if deadline is None or self.ends_at is None:
            return self.ends_at if deadline is None else deadline
        return min(deadline, self.ends_at)

    def update(self, owner: str, target: Target, may_play: bool, now: int) -> list[Effect]:
        """Start the next queued sound.

        Nothing can be played while the member's channel is being moved, because Asterisk would move it only after the
        sound had ended. A sound that is playing is therefore stopped, and starts again once the move is complete.
        """
        if not may_play:
            return self.stop()
        if self.player is not None or not self.queue:
            return []
        self.count += 1
        sound = self.queue[0]
        endless = isinstance(sound, SoundList) and sound.loop
        self.player = Player(f"{owner}.{self.count}", target, sounds_of(sound), endless=endless)
        return self.player.start(now)

    def handle_event(self, event: Event, now: int) -> list[Effect]:
        if self.player is None:
            return []
        if isinstance(event, DeadlineReached) and self.ends_at is not None and self.ends_at <= now:
            effects = self.stop()
            self.queue = self.queue[1:]
            return effects
        effects = self.player.handle_event(event, now)
        if self.player.done:
            self.player, self.ends_at, self.queue = None, None, self.queue[1:]
        elif isinstance(event, PlaybackStarted) and event.playback_id == self.player.playback_id:
            # `length` counts from the moment at which the sound is heard.
            sound = self.queue[0]
            if isinstance(sound, SoundList) and sound.length is not None and self.ends_at is None:
                self.ends_at = now + sound.length * 1000
        return effects

    def stop(self) -> list[Effect]:
        player, self.player, self.ends_at = self.player, None, None
        return player.stop() if player is not None else []

    def clear(self, kind: type[Play] | type[Speak]) -> list[Effect]:
        """Stop and drop all sounds of this kind: the one that is playing and the queued ones."""
        effects = self.stop() if self.queue and is_of(self.queue[0], kind) else []
        self.queue = [sound for sound in self.queue if not is_of(sound, kind)]
        return effects
