"""Invariants: the possible states of a call and of a conference.

Restored state is checked against them, so that no later event meets a state that the engine cannot produce. The
simulation checks every state that it reaches. Each function yields one short phrase per violation, and nothing if the
state is valid. `restoration` checks that calls and conferences refer to each other.
"""

from __future__ import annotations

from collections.abc import Iterator

from ari_conf.core import ids
from ari_conf.core.bounds import MAX_CALL_RECORDINGS
from ari_conf.core.calls.call import Call
from ari_conf.core.calls.call_recording import CallRecording
from ari_conf.core.calls.call_state import UNANSWERED, CallState
from ari_conf.core.calls.dial_element import DialRun
from ari_conf.core.calls.gather import Gather, GatherState
from ari_conf.core.calls.live_media import LIVE, DigitSending
from ari_conf.core.calls.machine_detection import MachineDetection
from ari_conf.core.calls.outgoing import Outgoing
from ari_conf.core.calls.record_element import RecordRun, RecordState
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.conferences.conference_state import BridgeState, ClaimState
from ari_conf.core.conferences.member import ConferenceSound, Member
from ari_conf.core.conferences.member_state import MemberState
from ari_conf.core.conferences.recording import ConferenceRecording
from ari_conf.core.effects import Target
from ari_conf.core.elements import Conference as Element
from ari_conf.core.elements import Wait
from ari_conf.core.ids import OwnerKind
from ari_conf.core.playback.player import Player, PlayerState
from ari_conf.core.playback.private_playback import PrivatePlayback
from ari_conf.core.queued_sound import sounds_of
from ari_conf.core.recording import RecordingState
from ari_conf.core.request_params import plausible

BRIDGES = {
    ClaimState.REQUESTED: (BridgeState.NONE,),
    ClaimState.GRANTED: (BridgeState.CREATING, BridgeState.READY),
    ClaimState.RELEASED: (BridgeState.NONE, BridgeState.CREATING, BridgeState.READY, BridgeState.DESTROYING),
}
"""Possible bridge states, by the state of the conference's name claim."""
STATES: dict[BridgeState, tuple[MemberState, ...]] = {
    BridgeState.NONE: (MemberState.AWAITING_NAME,),
    BridgeState.CREATING: (
        MemberState.WAITING,
        MemberState.AWAITING_BRIDGE,
        MemberState.ON_HOLD,
        MemberState.LEAVING,
    ),
    BridgeState.READY: (
        MemberState.WAITING,
        MemberState.ENTERING_BRIDGE,
        MemberState.IN_BRIDGE,
        MemberState.LEAVING_FOR_HOLD,
        MemberState.ON_HOLD,
        MemberState.LEAVING,
    ),
    BridgeState.DESTROYING: (),
}
"""Possible member states, by the bridge state of the conference."""


def call_violations(call: Call) -> Iterator[str]:
    if not (_is_id(call.call_uuid) and call.channel_id):
        yield "its ids"
    if not plausible(call.started_at, call.answered_at):
        yield "its times"
    if call.ended_at is not None:
        yield "it has ended"
    if call.account is not None and call.account.auth_id != call.auth_id:
        yield "its account"
    if call.state is not _implied_state(call):
        yield "its state"
    if len(call.recordings) > MAX_CALL_RECORDINGS:
        yield "the number of its recordings"
    for recording_id, recording in call.recordings.items():
        if recording.recording_id != recording_id:
            yield "the recording's id"
        yield from _call_recording_violations(recording, call)
    running = call.running
    if isinstance(running, Element) != (call.conference_id is not None):
        yield "its conference"
    if call.is_ending:
        if isinstance(running, Player | Gather | DigitSending | RecordRun):
            yield "it is being hung up, but still runs an element"
        if call.live is not None and (call.live.playback.queue or call.live.digits or call.live.holds):
            yield "it is being hung up, but the API still plays or sends something"
        return
    if call.account is None:
        if running is not None or call.fetch_purpose is not None:
            yield "it runs without an account"
        return
    if call.outgoing is not None:
        yield from _outgoing_violations(call, call.outgoing)
    if call.state in UNANSWERED:
        if running is not None or call.fetch_purpose is not None or call.answered_at is not None:
            yield "it is not answered, but runs a document"
        return
    is_idle = running is None and call.fetch_purpose is None
    must_idle = call.state is CallState.DETECTING or (call.dial is not None and not call.dial.is_admitted)
    # While the confirmation's sound document is being fetched, nothing runs yet.
    may_idle = must_idle or call.state is CallState.CONFIRMING
    both = running is not None and call.fetch_purpose is not None
    if both or (must_idle and not is_idle) or (is_idle and not may_idle):
        yield "its running element or request"
    if not 0 <= call.position <= len(call.elements):
        yield "its position in the document"
    fetch = call.pending_fetch
    if (fetch is None) != (call.fetch_purpose is None):
        yield "its document"
    if fetch is not None and fetch.fetch_id != ids.for_call(call.call_uuid, call.serial):
        yield "its document"
    owner = ids.for_call(call.call_uuid, call.serial)
    if isinstance(running, Player):
        yield from _player_violations(running, owner, call.target)
    if isinstance(running, Gather):
        yield from _gather_violations(running, owner, call.target)
    if call.transfer is not None and not call.in_conference:
        yield "a transfer that never begins"
    if call.dial is not None:
        yield from _dial_violations(call, call.dial)
    yield from _live_violations(call)
    if isinstance(running, RecordRun):
        yield from _record_violations(running, owner, call)


def _dial_violations(call: Call, run: DialRun) -> Iterator[str]:
    numbers = len(run.element.numbers)
    if ids.call_of(run.dial_id) != call.call_uuid or not numbers > 0:
        yield "the id of its Dial"
    if len(set(run.legs)) < len(run.legs) or len(run.legs) > numbers or call.call_uuid in run.legs:
        yield "the calls of its Dial"
    if not plausible(run.gives_up_at):
        yield "the time of its Dial"
    in_room = isinstance(call.running, Element) and call.running.dialed_by == call.call_uuid
    if run.is_admitted != in_room or (not run.is_admitted and len(run.legs) != numbers):
        yield "the state of its Dial"


def _live_violations(call: Call) -> Iterator[str]:
    live, running = call.live, call.running
    holds = live is not None and live.holds
    if isinstance(running, Player | Gather) and running.held is not holds:
        yield "an element that is held without a sound of the API, or plays beside it"
    if live is None:
        return
    yield from _private_playback_violations(live.playback, ids.for_call(call.call_uuid, LIVE), call.target)
    plays = live.playback.player is not None
    if plays if call.in_conference else plays != bool(live.playback.queue):
        yield "the sounds that the API queued for a call"
    if holds and not live.playback.queue:
        yield "an element that is held without a sound of the API"
    if list(live.digits) != sorted(live.digits, key=lambda run: run[0]):
        yield "the order of the digits"


def _outgoing_violations(call: Call, outgoing: Outgoing) -> Iterator[str]:
    if not 0 <= outgoing.attempt < len(outgoing.attempts):
        yield "its way"
    if call.channel_id != ids.channel_id(call.call_uuid, outgoing.channels):
        yield "its channel"
    if outgoing.created and call.state is CallState.QUEUED:
        yield "it is dialed before its turn"
    if not outgoing.created and call.state in (CallState.RINGING, CallState.EARLY):
        yield "its phone rings, and was not dialed"
    if (outgoing.ends_at is None) != (call.answered_at is None):
        yield "its time limit"
    digits_at = outgoing.digits.next_at if outgoing.digits is not None else None
    times = (outgoing.dial_at, outgoing.rings_until, outgoing.rang_at, outgoing.unconfirmed_until, outgoing.ends_at)
    if not plausible(*times, digits_at):
        yield "its times"
    if outgoing.machine is not None:
        yield from _detection_violations(call, outgoing.machine)


def _detection_violations(call: Call, machine: MachineDetection) -> Iterator[str]:
    if (machine.channel_id, machine.call_uuid) != (call.channel_id, call.call_uuid) or call.answered_at is None:
        yield "the call that it examines"
    if (machine.verdict is None) != (machine.decided_at is None) or (machine.verdict is None) != (
        machine.reason is None
    ):
        yield "its verdict"
    since = (machine.listening_since, machine.speaking_since, machine.quiet_since, machine.sentence_ended_at)
    if not plausible(machine.started_at, machine.decided_at, *since) or min(machine.speech_ms, machine.sentences) < 0:
        yield "what it has heard"


def _implied_state(call: Call) -> CallState:
    """Return the state that the call's other fields imply."""
    if call.ended_at is not None:
        return CallState.ENDED
    if call.hangup_retry_at is not None:
        return CallState.HANGING_UP
    if call.account is None:
        return CallState.IDENTIFYING
    if call.outgoing is not None and call.answered_at is None:
        if call.outgoing.rings_until is None:
            return CallState.QUEUED
        rings = call.state if call.state in (CallState.RINGING, CallState.EARLY) else CallState.RINGING
        return CallState.DIALING if call.outgoing.rang_at is None else rings
    if call.fetch_purpose is not None:
        return CallState.FETCHING
    if call.outgoing is not None and call.outgoing.holds_document and call.running is None:
        return CallState.DETECTING
    if call.outgoing is not None and call.outgoing.is_confirming:
        return CallState.CONFIRMING
    return CallState.IN_CONFERENCE if isinstance(call.running, Element) else CallState.RUNNING


def _call_recording_violations(recording: CallRecording, call: Call) -> Iterator[str]:
    whose = recording.auth_id, recording.call_uuid, recording.channel_id
    if whose != (call.auth_id, call.call_uuid, call.channel_id):
        yield "the recording's owner"
    if not _is_id(recording.recording_id) or not plausible(recording.started_at, recording.ended_at):
        yield "the recording's id or times"
    if not recording.track_names or not recording.open_tracks:
        yield "the recording's tracks"
    stopping = recording.state is RecordingState.STOPPING
    if recording.is_finished or recording.handed_over or (stopping and recording.deadline is None):
        yield "the recording's state"


def _record_violations(run: RecordRun, owner: str, call: Call) -> Iterator[str]:
    if (run.owner, run.target) != (owner, call.target):
        yield "the owner of what is recorded"
    beeps = run.state is RecordState.BEEP
    if not run.recording_id or beeps != (run.pending is not None) or beeps == (run.recording_id in call.recordings):
        yield "what is recorded"
    if (run.player is None) != (run.state is RecordState.STOPPING):
        yield "the state of what is recorded"
    elif run.player is not None:
        yield from _player_violations(run.player, f"{owner}.{1 if beeps else 2}", call.target)


def _gather_violations(gather: Gather, owner: str, target: Target) -> Iterator[str]:
    if (gather.owner, gather.target) != (owner, target):
        yield "the owner of the gathered digits"
    if gather.player is not None and gather.player.held is not gather.held:
        yield "a prompt that is held or not"
    awaits = gather.state in (GatherState.FIRST_DIGIT, GatherState.NEXT_DIGIT)
    if gather.ended or awaits != (gather.timer_at is not None) or awaits != (gather.player is None):
        yield "the state of the gathered digits"
    if gather.player is not None:
        yield from _player_violations(gather.player, f"{owner}.{gather.players}", target)


def _player_violations(player: Player, owner: str, target: Target) -> Iterator[str]:
    if (player.owner, player.target) != (owner, target):
        yield "the owner of a sound"
    if player.state in (PlayerState.NEW, PlayerState.DONE) or not 0 <= player.position < len(player.items):
        yield "the position of a sound"
        return
    waits = isinstance(player.items[player.position], Wait)
    sounds = player.state in (PlayerState.PREPARING, PlayerState.PLAYING)
    sounds = sounds or player.state is PlayerState.HELD
    if waits if sounds else not waits and player.state is PlayerState.WAITING:
        yield "the state of a sound"
    if player.held if player.state is PlayerState.PLAYING else player.state is PlayerState.HELD and not player.held:
        yield "a sound that is held or not"
    if player.state in (PlayerState.PLAYING, PlayerState.HELD) and not player.media:
        yield "the file of a sound"
    if (player.state in (PlayerState.WAITING, PlayerState.PAUSING)) != (player.until is not None):
        yield "the deadline of a sound"


def conference_violations(conference: Conference) -> Iterator[str]:
    if not _is_id(conference.conference_id):
        yield "its id"
    if not plausible(conference.created_at):
        yield "its times"
    if conference.bridge not in BRIDGES[conference.claim]:
        yield "its name and its bridge"
    # A conference that ends before its claim has a result stays in REQUESTED, because the claim gets only one result.
    if conference.ending != (conference.claim is ClaimState.RELEASED) and conference.claim is not ClaimState.REQUESTED:
        yield "its end"
    if not conference.ending and conference.claim is ClaimState.GRANTED and not conference.members:
        yield "it is empty, but has not ended"
    destroyed = conference.bridge is BridgeState.DESTROYING and conference.destroy_again_at is None
    if conference.ending and (conference.is_finished or destroyed):
        yield "it has ended"
    members = conference.members.values()
    if len({m.channel_id for m in members}) < len(members) or len({m.call_uuid for m in members}) < len(members):
        yield "a member is listed twice"
    for member_id, member in conference.members.items():
        if member.member_id != member_id or member_id < 1:
            yield "a member's id"
        yield from _member_violations(member, conference)
    for owner, player in conference.shared_playback.players.items():
        owned = ids.parse(owner)
        if owned is None or (owned.kind, owned.owner) != (OwnerKind.CONFERENCE, conference.conference_id):
            yield "the owner of a sound"
        yield from _player_violations(player, owner, Target("bridge", conference.bridge_id))
    if sum(not recording.handed_over for recording in conference.recordings.values()) > 1:
        yield "two recordings at a time"
    for recording_id, recording in conference.recordings.items():
        if recording.recording_id != recording_id:
            yield "the recording's id"
        yield from _recording_violations(recording, conference)


def _recording_violations(recording: ConferenceRecording, conference: Conference) -> Iterator[str]:
    if recording.bridge_id != conference.bridge_id or recording.auth_id != conference.auth_id:
        yield "the recording's owner"
    if not recording.recording_id or not plausible(recording.started_at, recording.ended_at):
        yield "the recording's id or times"
    stopping = recording.state is RecordingState.STOPPING
    if recording.is_finished != recording.handed_over or (stopping and recording.deadline is None):
        yield "the recording's state"
    if not recording.is_finished and conference.bridge is not BridgeState.READY:
        yield "the recording and the bridge"


def _member_violations(member: Member, conference: Conference) -> Iterator[str]:
    if bool(member.element.dialed_by) != conference.is_private:
        yield "a member of a private conference"
    where = member.conference_id, member.auth_id, member.element.name
    if where != (conference.conference_id, conference.auth_id, conference.name):
        yield "a member's conference"
    if not (_is_id(member.call_uuid) and member.channel_id):
        yield "a member's call"
    if not plausible(member.joined_at, member.talking_at):
        yield "a member's times"
    state = member.state
    if state not in STATES.get(conference.bridge, ()) or (conference.ending and state is not MemberState.LEAVING):
        yield "a member's state"
    if member.is_present and (state is MemberState.WAITING) == conference.started:
        yield "a member's wait for the start"
    if state is MemberState.LEAVING and member.leaving_until is None and not member.removals:
        yield "a member who never leaves"
    yield from _sound_violations(member.enter_sound, "enterSound")
    yield from _sound_violations(member.exit_sound, "exitSound")
    yield from _sound_violations(member.wait_sound, "waitSound")
    own, target = ids.for_member(conference.conference_id, member.member_id), Target("channel", member.channel_id)
    if member.player is not None:
        kind = "hold" if member.player.owner.startswith(f"{own}.hold.") else "wait"
        yield from _player_violations(member.player, f"{own}.{kind}.{member.rounds}", target)
    yield from _private_playback_violations(member.private_playback, f"{own}.private", target)


def _sound_violations(sounds: ConferenceSound, action: str) -> Iterator[str]:
    if sounds.action != action or (sounds.url is None and (sounds.request_pending or sounds.items is None)):
        yield "a member's sounds"


def _private_playback_violations(playback: PrivatePlayback, owner: str, target: Target) -> Iterator[str]:
    player = playback.player
    if player is None:
        return
    if not playback.queue or player.items != sounds_of(playback.queue[0]):
        yield "the sounds queued for a member"
    yield from _player_violations(player, f"{owner}.{playback.count}", target)


def _is_id(text: str) -> bool:
    """Return whether the text can be an id: owned ids begin with it and are split at their periods, see `ids`."""
    return bool(text) and "." not in text
