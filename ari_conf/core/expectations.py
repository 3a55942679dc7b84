"""Expectations: what calls and conferences expect of Asterisk, compared with a snapshot of what is there.

Each state machine says what it expects (`expectations`), and what it does again after a crash (`resume`).
`reconciliation/plan.py` compares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from ari_conf.core.events import Event


@dataclass(frozen=True, slots=True)
class AsteriskState:
    """Snapshot of what exists in Asterisk."""

    channels: dict[str, bool]
    """Channel id -> True if answered."""
    bridges: dict[str, frozenset[str]]
    """Bridge id -> ids of the channels in it."""
    playbacks: frozenset[str] = frozenset()
    recordings: frozenset[str] = frozenset()
    ringing: frozenset[str] = frozenset()
    """Ids of channels whose phone rings."""


class Expectation(NamedTuple):
    """Something that exists in Asterisk or does not, according to the state, and the event that follows if it differs.

    A tuple, because there are two for each member, and creating a frozen dataclass takes four times as long.
    """

    kind: Literal["channel", "answered", "ringing", "bridge", "member", "outside", "playback", "recording"]
    """outside: a member that is not in the bridge. answered, ringing: of a channel that is dialed."""
    id: str
    busy_key: str
    """Channel or bridge whose effects may be changing the thing right now."""
    bridge_id: str = ""
    auth_id: str = ""
    if_gone: Event | None = None
    if_there: Event | None = None
    confirmed_started: bool = True
    """False: no event has confirmed the start. After a takeover, it is started again, not considered ended."""
    already_decided: bool = False
    """True if the change was in progress before the gap, whatever happened during it."""
    turn: int = 0
    """Number of the member's entry into the bridge: an expectation about one entry does not hold for another."""

    def unsure(self) -> Expectation:
        """Return a copy that implies no event, for something that an effect is changing right now."""
        return self._replace(if_gone=None, if_there=None)

    def implied_event(self, there: AsteriskState) -> Event | None:
        match self.kind:
            case "channel":
                found = self.id in there.channels
            case "answered":
                found = there.channels.get(self.id, False)
            case "ringing":
                found = self.id in there.ringing
            case "bridge":
                found = self.id in there.bridges
            case "member" | "outside":
                found = self.id in there.bridges.get(self.bridge_id, ())
            case "playback":
                found = self.id in there.playbacks
            case "recording":
                found = self.id in there.recordings
        return self.if_there if found else self.if_gone
