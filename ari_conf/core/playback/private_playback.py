"""Private playback: sounds that the API plays to a single member, inside the conference or outside it, sequentially."""

from __future__ import annotations

import msgspec

from ari_conf.core.effects import Effect, Target
from ari_conf.core.elements import Play, Speak
from ari_conf.core.events import Event
from ari_conf.core.playback.player import Player


class PrivatePlayback(msgspec.Struct):
    queue: list[Play | Speak] = msgspec.field(default_factory=list)
    """Sounds of which the first one is playing or next."""
    player: Player | None = None
    """Player of the sound that is playing, or about to."""
    count: int = 0
    """Number of sounds started so far: part of their playback ids."""

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
        self.player = Player(f"{owner}.{self.count}", target, (self.queue[0],))
        return self.player.start(now)

    def handle_event(self, event: Event, now: int) -> list[Effect]:
        if self.player is None:
            return []
        effects = self.player.handle_event(event, now)
        if self.player.done:
            self.player, self.queue = None, self.queue[1:]
        return effects

    def stop(self) -> list[Effect]:
        player, self.player = self.player, None
        return player.stop() if player is not None else []

    def clear(self, kind: type[Play] | type[Speak]) -> list[Effect]:
        """Stop and drop all sounds of this kind: the one that is playing and the queued ones."""
        effects = self.stop() if self.queue and isinstance(self.queue[0], kind) else []
        self.queue = [sound for sound in self.queue if not isinstance(sound, kind)]
        return effects
