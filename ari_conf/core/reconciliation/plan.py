"""Reconciliation after a gap in the event stream: turns the difference between the server's state and Asterisk's into
events and effects.

There are three uses. When a new process takes over the state of a dead one, effects may not have been carried out
(`effects_to_repeat`), and nobody reports what happened in the meantime (`missed_events`). After a lost connection only
the second applies, because this process is still carrying out its effects. Once a minute, the states are also compared
on a connection that never broke, so that no call or conference waits indefinitely for an event that was lost; where the
states agree, nothing happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.calls.call import Call
from ari_conf.core.calls.gather import Gather
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.conferences.conference_state import BridgeState, ClaimState
from ari_conf.core.conferences.member import FLOOR_SILENCE_MS, Member
from ari_conf.core.conferences.member_state import MemberState
from ari_conf.core.conferences.recording import Recording, RecordingState
from ari_conf.core.elements import Wait
from ari_conf.core.engine import Engine
from ari_conf.core.messages import Outputs
from ari_conf.core.playback.player import Player, PlayerState
from ari_conf.core.request_retries import wanted

Why = Literal["takeover", "connection", "timer"]
INSIDE = (MemberState.ENTERING_BRIDGE, MemberState.IN_BRIDGE, MemberState.LEAVING_FOR_HOLD, MemberState.LEAVING)
"""States of members that may be in the bridge."""


@dataclass(frozen=True, slots=True)
class AsteriskState:
    """Snapshot of what exists in Asterisk."""

    channels: dict[str, bool]
    """Channel id -> True if answered."""
    bridges: dict[str, frozenset[str]]
    """Bridge id -> ids of the channels in it."""
    playbacks: frozenset[str] = frozenset()
    recordings: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Batch:
    """Some of the calls and conferences. A conference and its members' calls are in the same batch."""

    calls: dict[str, Call]
    conferences: dict[str, Conference]


class Expectation(NamedTuple):
    """Something that exists in Asterisk or does not, according to the state, and the event that follows if it differs.

    A tuple, because there are two for each member, and creating a frozen dataclass takes four times as long.
    """

    kind: Literal["channel", "bridge", "member", "outside", "playback", "recording"]
    """outside: a member that is not in the bridge."""
    id: str
    busy_key: str
    """Channel or bridge whose effects may be changing the thing right now."""
    bridge_id: str = ""
    auth_id: str = ""
    if_gone: ev.Event | None = None
    if_there: ev.Event | None = None
    confirmed_started: bool = True
    """False: no event has confirmed the start. After a takeover, it is started again, not considered ended."""
    already_decided: bool = False
    """True if the change was in progress before the gap, whatever happened during it."""
    turn: int = 0
    """Number of the member's entry into the bridge: an expectation about one entry does not hold for another."""

    def unsure(self) -> Expectation:
        """Return a copy that implies no event, for something that an effect is changing right now."""
        return self._replace(if_gone=None, if_there=None)

    def implied_event(self, there: AsteriskState) -> ev.Event | None:
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


def expectations(engine: Engine | Batch) -> list[Expectation]:
    """Return what the state expects of Asterisk. Must run before the snapshot: events report any later change."""
    found = [e for call in engine.calls.values() for e in call_expectations(call)]
    return found + [e for conference in engine.conferences.values() for e in conference_expectations(conference)]


def missed_events(expectations: Iterable[Expectation], there: AsteriskState) -> list[ev.Event]:
    """Return what must have happened: first what was already decided, then hangups, which explain the rest."""
    seen = [(e.already_decided, event) for e in expectations if (event := e.implied_event(there)) is not None]
    in_order = sorted(seen, key=lambda each: (not each[0], not isinstance(each[1], ev.ChannelHungUp)))
    return [event for _, event in in_order]


@dataclass(frozen=True, slots=True)
class ReconciliationPlan:
    repeat: Outputs
    """Effects to carry out first."""
    missed_events: list[ev.Event]
    """Events to deliver after that, in this order."""


def make_plan(
    engine: Engine | Batch, before: list[Expectation], there: AsteriskState, *, why: Why, ours: Callable[[str], bool]
) -> ReconciliationPlan:
    """Return the plan that follows from the snapshot `there`.

    `before` is the result of `expectations` before the snapshot, less what effects were changing. Only what is still
    expected counts, because events have reported the rest in the meantime. With `why="timer"`, events may still be on
    their way: leave them time between the snapshot and this call.

    `ours` recognizes the bridges that the server has created; other bridges are not touched.
    """
    took_over, listened = why == "takeover", why == "timer"
    otherwise = [e for e in before if e.implied_event(there) is not None]
    still = set(expectations(engine)) if otherwise else set()
    changed = [e for e in otherwise if e in still]
    if took_over:
        changed = [e if e.confirmed_started else e._replace(if_gone=None) for e in changed]
        changed = [e._replace(if_there=None) if e.kind == "member" and not e.confirmed_started else e for e in changed]
    if listened:
        # A playback that waits for another one to end exists in Asterisk, but has not started.
        changed = [e._replace(if_there=None) if e.kind == "playback" else e for e in changed]
    out = effects_to_repeat(engine, there) if took_over else []
    out += [] if listened else _restart_talk_detection(engine)
    out += _evict_unknown_channels(engine, there, before)
    if took_over:
        out += [do.DestroyBridge(bridge_id) for bridge_id in orphaned_bridges(engine, there, ours)]
    return ReconciliationPlan(out, [*missed_events(changed, there), *([] if listened else _assume_silence(engine))])


def _talking_members(engine: Engine | Batch) -> Iterator[Member]:
    """Yield the members that talk, as far as is known."""
    for conference in engine.conferences.values():
        yield from (m for m in conference.members.values() if m.talking and m.state is MemberState.IN_BRIDGE)


def _restart_talk_detection(engine: Engine | Batch) -> Outputs:
    # Asterisk can't be asked who has stopped talking. Restart talk detection, so that it reports again who is talking.
    out: Outputs = []
    for member in _talking_members(engine):
        out += [do.DetectTalking(member.channel_id, None), do.DetectTalking(member.channel_id, FLOOR_SILENCE_MS)]
    return out


def _assume_silence(engine: Engine | Batch) -> list[ev.Event]:
    """Return the end of talking for every talker. Otherwise a member who fell silent during the gap would count as
    talking forever, and no other member could take the floor."""
    return [ev.TalkingFinished(member.channel_id) for member in _talking_members(engine)]


def _evict_unknown_channels(engine: Engine | Batch, there: AsteriskState, before: list[Expectation]) -> Outputs:
    """Remove channels from a conference's bridge that already before the snapshot belonged to no member, or to a member
    outside. They hear the others and are heard, and nothing else would ever remove them."""
    out: Outputs = []
    for conference in engine.conferences.values():
        bridge_id = conference.bridge_id
        inside = there.bridges.get(bridge_id, frozenset()) if conference.bridge is BridgeState.READY else ()
        members = [m for m in conference.members.values() if m.channel_id in inside]
        if len(members) == len(inside) and all(m.state in INSIDE for m in members):
            continue
        if any(e.kind == "bridge" and e.id == bridge_id for e in before):
            were = {e.id: e for e in before if e.bridge_id == bridge_id}
            astray = set(inside).difference(were, [m.channel_id for m in members])
            astray |= {m.channel_id for m in members if m.state not in INSIDE and _outside(m, were.get(m.channel_id))}
            out += [do.RemoveChannel(channel_id, bridge_id) for channel_id in sorted(astray)]
    return out


def _outside(member: Member, was: Expectation | None) -> bool:
    """Return True if the member has been outside the bridge since before the snapshot."""
    return was is not None and was.kind == "outside" and was.turn == member.additions


def call_expectations(call: Call) -> Iterator[Expectation]:
    channel_id = call.channel_id
    yield Expectation("channel", channel_id, channel_id, if_gone=ev.ChannelHungUp(channel_id, 0))
    player = call.running.player if isinstance(call.running, Gather) else call.running
    if isinstance(player, Player):
        yield from _of_player(player)


def _of_player(player: Player) -> Iterator[Expectation]:
    if player.state is PlayerState.PLAYING:
        playback_id = player.playback_id
        over = ev.PlaybackFinished(playback_id)
        heard = None if player.confirmed_started else ev.PlaybackStarted(playback_id)
        confirmed = player.confirmed_started
        yield Expectation(
            "playback", playback_id, player.target.id, if_gone=over, if_there=heard, confirmed_started=confirmed
        )


def conference_expectations(conference: Conference) -> Iterator[Expectation]:
    bridge_id = conference.bridge_id
    if conference.bridge is BridgeState.CREATING:
        yield Expectation("bridge", bridge_id, bridge_id, if_there=ev.BridgeCreated(bridge_id))
    elif conference.bridge in (BridgeState.READY, BridgeState.DESTROYING):
        yield Expectation("bridge", bridge_id, bridge_id, if_gone=ev.BridgeDestroyed(bridge_id))
    for member in conference.members.values():
        yield from _of_member(member, bridge_id)
    for player in conference.shared_playback.players.values():
        yield from _of_player(player)
    for recording in conference.recordings.values():
        if not recording.is_finished:
            yield _of_recording(recording)


def _of_recording(recording: Recording) -> Expectation:
    recording_id, bridge_id = recording.recording_id, recording.bridge_id
    over = ev.RecordingFinished(bridge_id, recording.recording_id)
    confirmed = recording.state is not RecordingState.REQUESTED
    runs = None if confirmed else ev.RecordingStarted(bridge_id, recording_id, already_running=True)
    return Expectation("recording", recording_id, bridge_id, "", recording.auth_id, over, runs, confirmed)


def _of_member(member: Member, bridge_id: str) -> Iterator[Expectation]:
    channel_id = member.channel_id
    if member.state is MemberState.ENTERING_BRIDGE or (member.state is MemberState.IN_BRIDGE and member.reentering):
        entered = ev.ChannelEnteredBridge(channel_id, bridge_id)
        # A server that takes over adds a re-entering channel again, and receives the event of that.
        awaited = Expectation("member", channel_id, channel_id, bridge_id, if_there=entered, turn=member.additions)
        yield awaited._replace(confirmed_started=not member.reentering)
    elif member.state in INSIDE:
        left = ev.ChannelLeftBridge(channel_id, bridge_id)
        decided = member.state is MemberState.LEAVING and member.reason is not None
        of_member = Expectation("member", channel_id, channel_id, bridge_id, if_gone=left, already_decided=decided)
        yield of_member._replace(turn=member.additions)
    else:
        yield Expectation("outside", channel_id, channel_id, bridge_id, turn=member.additions)
    for player in (member.player, member.private_playback.player):
        if player is not None:
            yield from _of_player(player)


# Effects to repeat.


def effects_to_repeat(engine: Engine | Batch, there: AsteriskState) -> Outputs:
    """Return the effects that are in progress according to the state, and may have been lost with the previous process.
    Carrying one out twice does no harm."""
    calls = [call for call in engine.calls.values() if call.channel_id in there.channels]
    out: Outputs = []
    for call in calls:
        conference = engine.conferences.get(call.conference_id or "")
        member = conference.member_of(call.channel_id) if conference is not None else None
        out += _call_again(call, member, there) if not call.is_ending else []
    for conference in engine.conferences.values():
        out += _conference_again(conference, there)
    # A member who leaves and is hung up leaves first, in the order of the decisions.
    return out + [do.HangUp(call.channel_id) for call in calls if call.is_ending]


def _call_again(call: Call, member: Member | None, there: AsteriskState) -> Outputs:
    # First what was switched off, then what is on. The time of switching off does not matter: it would compare this
    # process's clock with that of the process that wrote it.
    out: Outputs = [effect for _, effect in call.undone if wanted(effect, call, member) == effect]
    if call.account is None:
        out.append(do.IdentifyCall(call.call_uuid, call.channel_id, call.auth_id))
    if call.answered_at is not None and not there.channels[call.channel_id]:
        out.append(do.Answer(call.channel_id))
    if call.pending_fetch is not None:
        out.append(call.pending_fetch)
    player = call.running.player if isinstance(call.running, Gather) else call.running
    return out + (_player_again(player, there) if isinstance(player, Player) else [])


def _player_again(player: Player, there: AsteriskState) -> Outputs:
    item = player.items[player.position] if player.position < len(player.items) else None
    if item is None or player.done:
        return []
    if isinstance(item, Wait):
        listens = player.state is PlayerState.WAITING and player.owner.startswith("c.")
        if listens and item.silence:
            return [do.DetectTalking(player.target.id, item.min_silence)]
        return [do.DetectBeep(player.target.id, True)] if listens and item.beep else []
    playing = player.state is PlayerState.PLAYING
    if playing and not player.confirmed_started and player.playback_id not in there.playbacks:
        return [*player.repeat_effects()]
    return [do.PrepareSound(player.playback_id, item)] if player.state is PlayerState.PREPARING else []


def _conference_again(conference: Conference, there: AsteriskState) -> Outputs:
    bridge_id = conference.bridge_id
    out: Outputs = [effect for _, effect in conference.undone if bridge_id in there.bridges]
    if conference.claim is ClaimState.REQUESTED:
        out += conference.claim_name()
    if conference.bridge is BridgeState.CREATING and bridge_id not in there.bridges:
        out.append(do.CreateBridge(bridge_id))
    if conference.bridge is BridgeState.DESTROYING and bridge_id in there.bridges:
        out.append(do.DestroyBridge(bridge_id))
    for member in conference.members.values():
        if member.channel_id in there.channels:
            out += _member_again(member, conference, there)
    for player in conference.shared_playback.players.values():
        out += _player_again(player, there)
    for recording in conference.recordings.values():
        if recording.state is RecordingState.REQUESTED and recording.recording_id not in there.recordings:
            out += recording.start()
    return out


def _member_again(member: Member, conference: Conference, there: AsteriskState) -> Outputs:
    channel_id, bridge_id = member.channel_id, conference.bridge_id
    is_in = channel_id in there.bridges.get(bridge_id, ())
    out: Outputs = []
    enters = member.state is MemberState.ENTERING_BRIDGE and not is_in
    if enters or (member.state is MemberState.IN_BRIDGE and member.reentering):
        out.append(do.AddChannel(channel_id, bridge_id, member.member_id))
    if member.state in (MemberState.LEAVING_FOR_HOLD, MemberState.LEAVING) and is_in:
        out.append(do.RemoveChannel(channel_id, bridge_id, member.member_id))
    # Asterisk doesn't report which channels are muted.
    if member.silenced:
        out.append(do.MuteChannel(channel_id, True))
    if member.deaf and member.state is not MemberState.ON_HOLD:
        out.append(do.DeafenChannel(channel_id, True))
    if member.talk_detection_on:
        out.append(do.DetectTalking(channel_id, FLOOR_SILENCE_MS))
    if member.music:
        out.append(do.StartMusic(channel_id))
    for sound in (member.enter_sound, member.exit_sound, member.wait_sound):
        if sound.request_pending:
            sound.request_pending = False
            out += member.request_sound(sound)
    for player in (member.player, member.private_playback.player):
        out += _player_again(player, there) if player else []
    return out


def orphaned_bridges(engine: Engine | Batch, there: AsteriskState, is_ours: Callable[[str], bool]) -> list[str]:
    """Return the server's bridges that no conference has: a dead process created them and could not persist that."""
    return [bridge_id for bridge_id in there.bridges if is_ours(bridge_id) and bridge_id not in engine.conferences]
