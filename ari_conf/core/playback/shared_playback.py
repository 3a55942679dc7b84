"""Shared playback: sounds that all members hear, which are enter and exit sounds and the API's announcements."""

from __future__ import annotations

import msgspec

from ari_conf.core.effects import Effect, Target
from ari_conf.core.elements import Prompt
from ari_conf.core.events import DeadlineReached, Event
from ari_conf.core.playback.player import Player

ANNOUNCEMENT = "announcement"
"""Part of the ids of the API's announcements."""
DIAL_MUSIC = "dial-music"
"""Part of the ids of what is heard while somebody is called into the conference."""


class SharedPlayback(msgspec.Struct):
    players: dict[str, Player] = msgspec.field(default_factory=dict)
    """Players of the sounds that play or are queued, by owner id."""
    count: int = 0
    """Number of sounds so far: part of their playback ids."""

    @property
    def announcements(self) -> list[Player]:
        """Return the players of the API's announcements."""
        return [p for owner, p in self.players.items() if f".{ANNOUNCEMENT}." in owner]

    @property
    def dial_music(self) -> Player | None:
        return next((p for owner, p in self.players.items() if f".{DIAL_MUSIC}." in owner), None)

    def play(
        self,
        owner: str,
        target: Target,
        items: tuple[Prompt, ...],
        now: int,
        call_uuid: str = "",
        *,
        endless: bool = False,
    ) -> list[Effect]:
        """Play the sounds behind those that are queued. `owner`: beginning of the owner id; see `Player.call_uuid`."""
        self.count += 1
        owner = f"{owner}.{self.count}"
        self.players[owner] = player = Player(owner, target, items, endless, call_uuid=call_uuid)
        return player.start(now)

    def player_of(self, playback_id: str) -> Player | None:
        return self.players.get(playback_id.rpartition(".")[0])

    def handle_event(self, player: Player, event: Event, now: int) -> list[Effect]:
        effects = player.handle_event(event, now)
        if player.done:
            del self.players[player.owner]
        return effects

    def on_deadline(self, now: int) -> list[Effect]:
        return [effect for player in self.players.values() for effect in player.handle_event(DeadlineReached(), now)]

    def stop(self) -> list[Effect]:
        return [effect for player in self.players.values() for effect in player.stop()]

    def stop_announcements(self) -> list[Effect]:
        return [effect for player in self.announcements for effect in player.stop()]

    def drop_finished(self) -> None:
        self.players = {owner: p for owner, p in self.players.items() if not p.done}
