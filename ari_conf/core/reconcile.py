"""The difference between what the state says and what Asterisk has, as events and effects.

Three uses. A new process takes over what a dead one has written: what was to be done may not have been done (`again`),
and what happened meanwhile is told by nobody (`missed`). After a lost connection only the latter, since what was to be
done still is being done. And now and then, on a connection that has broken nothing: should an event have been lost all
the same, its call or conference does not wait for it for ever; where nothing differs nothing is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.call import Call
from ari_conf.core.conference import Conference
from ari_conf.core.directory import Directory
from ari_conf.core.elements import Wait
from ari_conf.core.gather import Gather
from ari_conf.core.hearing import FLOOR_SILENCE_MS
from ari_conf.core.insisting import wanted
from ari_conf.core.internal import Out
from ari_conf.core.member import Member
from ari_conf.core.player import Player

Why = Literal["takeover", "connection", "timer"]
INSIDE = ("adding", "mixed", "parting", "leaving")
"""The states of members who may be in the bridge."""


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
class Part:
    """Some calls and conferences; all of them that belong together."""

    calls: dict[str, Call]
    conferences: dict[str, Conference]


class Expected(NamedTuple):
    """Something that the state takes for there or for gone, and what is to be said if it is otherwise.

    A tuple, since there are two for each member, and a dataclass that can't change is made at four times the cost.
    """

    kind: Literal["channel", "bridge", "member", "outside", "playback", "recording"]
    """outside: a member who is not in the bridge."""
    id: str
    lane: str
    """The channel or bridge whose effects may just be changing it."""
    bridge_id: str = ""
    auth_id: str = ""
    if_gone: ev.Event | None = None
    if_there: ev.Event | None = None
    begun: bool = True
    """False: nobody has heard yet that it began. Who takes over begins it then, rather than taking it for ended."""
    decided: bool = False
    """It was under way already, whatever happened then."""
    turn: int = 0
    """A member may leave the bridge and come back: what was expected of the one time is not of the other."""

    def unsure(self) -> Expected:
        """The same, if an effect is just changing it: nothing follows from how it is."""
        return self._replace(if_gone=None, if_there=None)

    def seen(self, there: There) -> ev.Event | None:
        match self.kind:
            case "channel":
                found = self.id in there.channels
            case "bridge":
                found = self.id in there.bridges
            case "member" | "outside":
                found = self.id in there.bridges.get(self.bridge_id, ())
            case "playback":
                found = self.id in there.playbacks
            case "recording":
                found = self.id in there.recordings
        return self.if_there if found else self.if_gone


def expected(directory: Directory | Part) -> list[Expected]:
    """To be asked before looking what Asterisk has: what changes while one looks is told by events."""
    found = [e for call in directory.calls.values() for e in of_call(call)]
    return found + [e for conference in directory.conferences.values() for e in of_conference(conference)]


def missed(expectations: Iterable[Expected], there: There) -> list[ev.Event]:
    """What must have happened. First what was decided already; then hang-ups: they explain the rest."""
    seen = [(e.decided, event) for e in expectations if (event := e.seen(there)) is not None]
    in_order = sorted(seen, key=lambda each: (not each[0], not isinstance(each[1], ev.ChannelHungUp)))
    return [event for _, event in in_order]


@dataclass(frozen=True, slots=True)
class Compared:
    again: Out
    """To be done first."""
    missed: list[ev.Event]
    """To be delivered then, in this order."""


def compared(
    directory: Directory | Part, before: list[Expected], there: There, *, why: Why, ours: Callable[[str], bool]
) -> Compared:
    """What follows from what Asterisk has. `before` is what was `expected` before anybody looked, less what effects
    were just changing; only what is still expected counts, since the rest was told by events meanwhile. On the timer
    events may still be on their way: they are to be given time between looking and comparing.

    `ours` knows the bridges that this application has made: others are not touched.
    """
    took_over, listened = why == "takeover", why == "timer"
    otherwise = [e for e in before if e.seen(there) is not None]
    still = set(expected(directory)) if otherwise else set()
    expectations = [e for e in otherwise if e in still]
    if took_over:
        expectations = [e if e.begun else e._replace(if_gone=None) for e in expectations]
        expectations = [e._replace(if_there=None) if e.kind == "member" and not e.begun else e for e in expectations]
    if listened:
        # One that waits for another's end is there, and has not begun.
        expectations = [e._replace(if_there=None) if e.kind == "playback" else e for e in expectations]
    out = again(directory, there) if took_over else []
    out += [] if listened else _listened_to_anew(directory)
    out += _astray(directory, there, before)
    if took_over:
        out += [do.DestroyBridge(bridge_id) for bridge_id in strangers(directory, there, ours)]
    return Compared(out, [*missed(expectations, there), *([] if listened else _silent(directory))])


def _talkers(directory: Directory | Part) -> Iterator[Member]:
    """As far as is known."""
    for conference in directory.conferences.values():
        yield from (m for m in conference.members.values() if m.talking and m.state == "mixed")


def _listened_to_anew(directory: Directory | Part) -> Out:
    # Who has fallen silent meanwhile can't be asked: so it is begun anew, and who talks is told of again.
    out: Out = []
    for member in _talkers(directory):
        out += [do.DetectTalking(member.channel_id, None), do.DetectTalking(member.channel_id, FLOOR_SILENCE_MS)]
    return out


def _silent(directory: Directory | Part) -> list[ev.Event]:
    """Else one who fell silent while nobody listened would talk for ever, and nobody could take the floor from him."""
    return [ev.TalkingFinished(member.channel_id) for member in _talkers(directory)]


def _astray(directory: Directory | Part, there: There, before: list[Expected]) -> Out:
    """Channels in a conference's bridge that are no members, or members outside, and were so before anybody looked:
    they hear the others and are heard, and nobody would ever take them out."""
    out: Out = []
    for conference in directory.conferences.values():
        bridge_id = conference.bridge_id
        inside = there.bridges.get(bridge_id, frozenset()) if conference.bridge == "ready" else ()
        members = [m for m in conference.members.values() if m.channel_id in inside]
        if len(members) == len(inside) and all(m.state in INSIDE for m in members):
            continue
        if any(e.kind == "bridge" and e.id == bridge_id for e in before):
            were = {e.id: e for e in before if e.bridge_id == bridge_id}
            astray = set(inside).difference(were, [m.channel_id for m in members])
            astray |= {m.channel_id for m in members if m.state not in INSIDE and _outside(m, were.get(m.channel_id))}
            out += [do.RemoveChannel(channel_id, bridge_id) for channel_id in sorted(astray)]
    return out


def _outside(member: Member, was: Expected | None) -> bool:
    """All the time."""
    return was is not None and was.kind == "outside" and was.turn == member.additions


def of_call(call: Call) -> Iterator[Expected]:
    channel_id = call.channel_id
    yield Expected("channel", channel_id, channel_id, if_gone=ev.ChannelHungUp(channel_id, 0))
    player = call.running.player if isinstance(call.running, Gather) else call.running
    if isinstance(player, Player):
        yield from _of_player(player)


def _of_player(player: Player) -> Iterator[Expected]:
    if player.state == "playing":
        playback_id = player.playback_id
        over = ev.PlaybackFinished(playback_id)
        heard = None if player.begun else ev.PlaybackStarted(playback_id)
        yield Expected("playback", playback_id, player.target.id, if_gone=over, if_there=heard, begun=player.begun)


def of_conference(conference: Conference) -> Iterator[Expected]:
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
        begun = recording.begun or recording.state != "running"
        runs = None if begun else ev.RecordingStarted(bridge_id, recording.recording_id, found=True)
        yield Expected("recording", recording.recording_id, bridge_id, "", conference.auth_id, over, runs, begun)


def _of_member(member: Member, bridge_id: str) -> Iterator[Expected]:
    channel_id = member.channel_id
    if member.state == "adding" or (member.state == "mixed" and member.reentering):
        entered = ev.ChannelEnteredBridge(channel_id, bridge_id)
        # Whoever takes over adds one who is to leave and enter again once more, and is told of that.
        awaited = Expected("member", channel_id, channel_id, bridge_id, if_there=entered, turn=member.additions)
        yield awaited._replace(begun=not member.reentering)
    elif member.state in INSIDE:
        left = ev.ChannelLeftBridge(channel_id, bridge_id)
        decided = member.state == "leaving" and member.reason is not None
        of_member = Expected("member", channel_id, channel_id, bridge_id, if_gone=left, decided=decided)
        yield of_member._replace(turn=member.additions)
    else:
        yield Expected("outside", channel_id, channel_id, bridge_id, turn=member.additions)
    for player in (member.player, member.aside.player):
        if player is not None:
            yield from _of_player(player)


# What is to be done again.


def again(directory: Directory | Part, there: There) -> Out:
    """What the state says is under way, and may have died with who did it. Each may be done twice without harm."""
    calls = [call for call in directory.calls.values() if call.channel_id in there.channels]
    out: Out = []
    for call in calls:
        conference = directory.conferences.get(call.conference_id or "")
        member = conference.member_of(call.channel_id) if conference is not None else None
        out += _call_again(call, member, there) if not call.over else []
    for conference in directory.conferences.values():
        out += _conference_again(conference, there)
    # One who leaves and is hung up leaves first, as it was decided.
    return out + [do.HangUp(call.channel_id) for call in calls if call.over]


def _call_again(call: Call, member: Member | None, there: There) -> Out:
    # First what is no longer to be; then what is. How long ago it was undone is not asked: that would compare the clock
    # of the process that wrote it with ours.
    out: Out = [effect for _, effect in call.undone if wanted(effect, call, member) == effect]
    if call.account is None:
        out.append(do.IdentifyCall(call.call_uuid, call.channel_id, call.auth_id))
    if call.answered_at is not None and not there.channels[call.channel_id]:
        out.append(do.Answer(call.channel_id))
    if call.asked is not None:
        out.append(call.asked)
    player = call.running.player if isinstance(call.running, Gather) else call.running
    return out + (_player_again(player, there) if isinstance(player, Player) else [])


def _player_again(player: Player, there: There) -> Out:
    item = player.items[player.position] if player.position < len(player.items) else None
    if item is None or player.done:
        return []
    if isinstance(item, Wait):
        listens = player.state == "waiting" and player.owner.startswith("c.")
        if listens and item.silence:
            return [do.DetectTalking(player.target.id, item.min_silence)]
        return [do.DetectBeep(player.target.id, True)] if listens and item.beep else []
    if player.state == "playing" and not player.begun and player.playback_id not in there.playbacks:
        return [*player.again()]
    return [do.PrepareSound(player.playback_id, item)] if player.state == "preparing" else []


def _conference_again(conference: Conference, there: There) -> Out:
    bridge_id = conference.bridge_id
    out: Out = [effect for _, effect in conference.undone if bridge_id in there.bridges]
    if conference.claim == "asked":
        out += conference.create()
    if conference.bridge == "creating" and bridge_id not in there.bridges:
        out.append(do.CreateBridge(bridge_id))
    if conference.bridge == "destroying" and bridge_id in there.bridges:
        out.append(do.DestroyBridge(bridge_id))
    for member in conference.members.values():
        if member.channel_id in there.channels:
            out += _member_again(member, conference, there)
    for player in conference.players.values():
        out += _player_again(player, there)
    recording = conference.recording
    if recording is not None and recording.state == "running" and not recording.begun:
        out += recording.start() if recording.recording_id not in there.recordings else []
    return out


def _member_again(member: Member, conference: Conference, there: There) -> Out:
    channel_id, bridge_id = member.channel_id, conference.bridge_id
    is_in = channel_id in there.bridges.get(bridge_id, ())
    out: Out = []
    if (member.state == "adding" and not is_in) or (member.state == "mixed" and member.reentering):
        out.append(do.AddChannel(channel_id, bridge_id, member.member_id))
    if member.state in ("parting", "leaving") and is_in:
        out.append(do.RemoveChannel(channel_id, bridge_id, member.member_id))
    # Asterisk doesn't say who is muted.
    if member.silenced:
        out.append(do.MuteChannel(channel_id, True))
    if member.deaf and member.state != "held":
        out.append(do.DeafenChannel(channel_id, True))
    if member.detected:
        out.append(do.DetectTalking(channel_id, FLOOR_SILENCE_MS))
    if member.music:
        out.append(do.StartMusic(channel_id))
    for sound in (member.enter_sound, member.exit_sound, member.wait_sound):
        if sound.asking:
            sound.asking = False
            out += member.ask(sound, conference.name)
    for player in (member.player, member.aside.player):
        out += _player_again(player, there) if player else []
    return out


def strangers(directory: Directory | Part, there: There, is_ours: Callable[[str], bool]) -> list[str]:
    """Bridges of ours that no conference has: a dead process made them and could not write it down."""
    return [bridge_id for bridge_id in there.bridges if is_ours(bridge_id) and bridge_id not in directory.conferences]
