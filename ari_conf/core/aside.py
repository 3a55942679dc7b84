"""What is played to one member alone at the API's wish, inside the conference and outside: one sound after another."""

from __future__ import annotations

from dataclasses import dataclass, field

from ari_conf.core.effects import Effect, Target
from ari_conf.core.elements import Play, Speak
from ari_conf.core.events import Event
from ari_conf.core.player import Player


@dataclass(slots=True)
class Aside:
    queue: list[Play | Speak] = field(default_factory=list)
    """The first is being played, or is next."""
    player: Player | None = None
    count: int = 0
    """Sounds begun so far: part of their playbacks' ids."""

    def settle(self, owner: str, target: Target, may_play: bool, now: int) -> list[Effect]:
        """Plays what is next. While he is moved it can't: Asterisk would move him only when the sound has ended. So
        it is stopped, and begins again when he is where he was to be."""
        if not may_play:
            return self.stop()
        if self.player is not None or not self.queue:
            return []
        self.count += 1
        self.player = Player(f"{owner}.{self.count}", target, (self.queue[0],))
        return self.player.start(now)

    def receive(self, event: Event, now: int) -> list[Effect]:
        if self.player is None:
            return []
        effects = self.player.receive(event, now)
        if self.player.done:
            self.player, self.queue = None, self.queue[1:]
        return effects

    def stop(self) -> list[Effect]:
        player, self.player = self.player, None
        return player.stop() if player is not None else []

    def drop(self, kind: type[Play] | type[Speak]) -> list[Effect]:
        """No more of these: neither the one that is played, nor those that are queued."""
        effects = self.stop() if self.queue and isinstance(self.queue[0], kind) else []
        self.queue = [sound for sound in self.queue if not isinstance(sound, kind)]
        return effects
