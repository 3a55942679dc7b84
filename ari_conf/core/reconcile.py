"""After a time without news: the difference between what the state says and what Asterisk has, as events and effects.

Two uses. A new process takes over what a dead one has written: what was to be done may not have been done (`again`),
and what happened meanwhile is told by nobody (`missed`). And after a lost connection only the latter, since what was to
be done still is being done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.call import Call
from ari_conf.core.conference import FLOOR_SILENCE_MS, Conference
from ari_conf.core.directory import Directory
from ari_conf.core.elements import Wait
from ari_conf.core.gather import Gather
from ari_conf.core.internal import Out
from ari_conf.core.member import Member
from ari_conf.core.player import Player


@dataclass(frozen=True, slots=True)
class There:
    """What Asterisk has."""

    channels: dict[str, bool]
    """id -> answered"""
    bridges: dict[str, frozenset[str]]
    """id -> the channels in it"""
    playbacks: frozenset[str] = frozenset()
    recordings: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Expected:
    """Something that the state takes for there or for gone, and what is to be said if it is otherwise."""

    kind: Literal["channel", "bridge", "member", "playback", "recording"]
    id: str
    lane: str
    """The channel or bridge whose effects may just be changing it."""
    bridge_id: str = ""
    auth_id: str = ""
    if_gone: ev.Event | None = None
    if_there: ev.Event | None = None

    def seen(self, there: There) -> ev.Event | None:
        match self.kind:
            case "channel":
                found = self.id in there.channels
            case "bridge":
                found = self.id in there.bridges
            case "member":
                found = self.id in there.bridges.get(self.bridge_id, ())
            case "playback":
                found = self.id in there.playbacks
            case "recording":
                found = self.id in there.recordings
        return self.if_there if found else self.if_gone


def expected(directory: Directory) -> list[Expected]:
    """To be asked before looking what Asterisk has: what changes while one looks is told by events."""
    found = [e for call in directory.calls.values() for e in _of_call(call)]
    return found + [e for conference in directory.conferences.values() for e in _of_conference(conference)]


def missed(expectations: list[Expected], there: There) -> list[ev.Event]:
    """What must have happened. Hang-ups first: they explain the rest."""
    seen = [event for event in (e.seen(there) for e in expectations) if event is not None]
    return sorted(seen, key=lambda event: not isinstance(event, ev.ChannelHungUp))


def _of_call(call: Call) -> Iterator[Expected]:
    channel_id = call.channel_id
    yield Expected("channel", channel_id, channel_id, if_gone=ev.ChannelHungUp(channel_id, 0))
    player = call.running.player if isinstance(call.running, Gather) else call.running
    if isinstance(player, Player):
        yield from _of_player(player)


def _of_player(player: Player) -> Iterator[Expected]:
    if player.state == "playing":
        playback_id = player.playback_id
        yield Expected("playback", playback_id, player.target.id, if_gone=ev.PlaybackFinished(playback_id))


def _of_conference(conference: Conference) -> Iterator[Expected]:
    bridge_id = conference.bridge_id
    if conference.bridge == "creating":
        yield Expected("bridge", bridge_id, bridge_id, if_there=ev.BridgeCreated(bridge_id))
    elif conference.bridge in ("ready", "destroying"):
        yield Expected("bridge", bridge_id, bridge_id, if_gone=ev.BridgeDestroyed(bridge_id))
    for member in conference.members.values():
        yield from _of_member(member, bridge_id)
    for player in conference.players.values():
        yield from _of_player(player)
    recording = conference.recording
    if recording is not None and not recording.finished:
        over = ev.RecordingFinished(bridge_id, recording.recording_id)
        yield Expected("recording", recording.recording_id, bridge_id, auth_id=conference.auth_id, if_gone=over)


def _of_member(member: Member, bridge_id: str) -> Iterator[Expected]:
    channel_id = member.channel_id
    if member.state == "adding":
        entered = ev.ChannelEnteredBridge(channel_id, bridge_id)
        yield Expected("member", channel_id, channel_id, bridge_id, if_there=entered)
    elif member.state in ("mixed", "parting", "leaving"):
        left = ev.ChannelLeftBridge(channel_id, bridge_id)
        yield Expected("member", channel_id, channel_id, bridge_id, if_gone=left)
    for player in (member.player, member.aside.player):
        if player is not None:
            yield from _of_player(player)


# What is to be done again.


def again(directory: Directory, there: There) -> Out:
    """What the state says is under way, and may have died with who did it. Each may be done twice without harm."""
    out: Out = []
    for call in directory.calls.values():
        if call.channel_id in there.channels:
            out += _call_again(call, there)
    for conference in directory.conferences.values():
        out += _conference_again(conference, there)
    return out


def _call_again(call: Call, there: There) -> Out:
    if call.over:
        return [do.HangUp(call.channel_id)]
    out: Out = []
    if call.account is None:
        out.append(do.IdentifyCall(call.call_uuid, call.channel_id, call.auth_id))
    if call.answered_at is not None and not there.channels[call.channel_id]:
        out.append(do.Answer(call.channel_id))
    if call.asked is not None:
        out.append(call.asked)
    player = call.running.player if isinstance(call.running, Gather) else call.running
    return out + (_player_again(player) if isinstance(player, Player) else [])


def _player_again(player: Player) -> Out:
    item = player.items[player.position] if player.position < len(player.items) else None
    if item is None or player.done:
        return []
    if isinstance(item, Wait):
        listens = player.state == "waiting" and player.owner.startswith("c.")
        if listens and item.silence:
            return [do.DetectTalking(player.target.id, item.min_silence)]
        return [do.DetectBeep(player.target.id, True)] if listens and item.beep else []
    return [do.PrepareSound(player.playback_id, item)] if player.state == "preparing" else []


def _conference_again(conference: Conference, there: There) -> Out:
    bridge_id = conference.bridge_id
    in_bridge = there.bridges.get(bridge_id, frozenset())
    out: Out = []
    if conference.claim == "asked":
        out += conference.create()
    if conference.bridge == "creating" and bridge_id not in there.bridges:
        out.append(do.CreateBridge(bridge_id))
    if conference.bridge == "destroying" and bridge_id in there.bridges:
        out.append(do.DestroyBridge(bridge_id))
    for member in conference.members.values():
        if member.channel_id in there.channels:
            out += _member_again(member, conference, member.channel_id in in_bridge)
    for player in conference.players.values():
        out += _player_again(player)
    recording = conference.recording
    if recording is not None and recording.state == "stopping":
        out.append(do.StopRecording(bridge_id, recording.recording_id, conference.auth_id))
    return out


def _member_again(member: Member, conference: Conference, is_in: bool) -> Out:
    channel_id, bridge_id = member.channel_id, conference.bridge_id
    out: Out = []
    if member.state == "adding" and not is_in:
        out.append(do.AddChannel(channel_id, bridge_id))
    if member.state in ("parting", "leaving") and is_in:
        out.append(do.RemoveChannel(channel_id, bridge_id))
    # Asterisk doesn't say who is muted; and one who was just to be heard again may have died with who did it.
    if member.muted or is_in:
        out.append(do.MuteChannel(channel_id, member.muted))
    if (member.deaf or is_in) and member.state != "held":
        out.append(do.DeafenChannel(channel_id, member.deaf))
    if member.detected:
        out.append(do.DetectTalking(channel_id, FLOOR_SILENCE_MS))
    if member.music:
        out.append(do.StartMusic(channel_id))
    for sound in (member.enter_sound, member.exit_sound, member.wait_sound):
        if sound.asking:
            sound.asking = False
            out += member.ask(sound, conference.name)
    for player in (member.player, member.aside.player):
        out += _player_again(player) if player else []
    return out


def strangers(directory: Directory, there: There, is_ours: Callable[[str], bool]) -> list[str]:
    """Bridges of ours that no conference has: a dead process made them and could not write it down."""
    return [bridge_id for bridge_id in there.bridges if is_ours(bridge_id) and bridge_id not in directory.conferences]
