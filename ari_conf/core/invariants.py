"""Invariants: the possible states of a call and of a conference.

Restored state is checked against them, so that no later event meets a state that the engine cannot produce. The
simulation checks every state that it reaches. Each function yields one short phrase per violation, and nothing if the
state is valid. `abort` checks that calls and conferences refer to each other.
"""

from __future__ import annotations

from collections.abc import Iterator

from ari_conf.core import ids
from ari_conf.core.calls.call import Call
from ari_conf.core.calls.gather import Gather
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.conferences.member import ConferenceSound, Member
from ari_conf.core.conferences.recording import Recording
from ari_conf.core.effects import Target
from ari_conf.core.elements import Conference as Element
from ari_conf.core.elements import Wait
from ari_conf.core.ids import OwnerKind
from ari_conf.core.playback.player import Player
from ari_conf.core.playback.private_playback import PrivatePlayback
from ari_conf.core.request_params import plausible

BRIDGES = {
    "asked": ("none",),
    "held": ("creating", "ready"),
    "released": ("none", "creating", "ready", "destroying"),
}
"""Possible bridge states, by the state of the conference's name claim."""
STATES = {
    "none": ("arriving",),
    "creating": ("waiting", "joining", "held", "leaving"),
    "ready": ("waiting", "adding", "mixed", "parting", "held", "leaving"),
    "destroying": (),
}
"""Possible member states, by the bridge state of the conference."""


def of_call(call: Call) -> Iterator[str]:
    if not (_is_id(call.call_uuid) and call.channel_id):
        yield "its ids"
    if not plausible(call.started_at, call.answered_at):
        yield "its times"
    if call.ended_at is not None:
        yield "it has ended"
    if call.account is not None and call.account.auth_id != call.auth_id:
        yield "its account"
    running = call.running
    if isinstance(running, Element) != (call.conference_id is not None):
        yield "its conference"
    if call.is_ending:
        if isinstance(running, Player | Gather):
            yield "it is being hung up, but still runs an element"
        return
    if call.account is None:
        if running is not None or call.fetching is not None:
            yield "it runs without an account"
        return
    if (running is None) == (call.fetching is None):
        yield "its running element or request"
    if not 0 <= call.position <= len(call.elements):
        yield "its position in the document"
    asked = call.asked
    if (asked is None) != (call.fetching is None):
        yield "its document"
    if asked is not None and asked.fetch_id != ids.for_call(call.call_uuid, call.serial):
        yield "its document"
    owner = ids.for_call(call.call_uuid, call.serial)
    if isinstance(running, Player):
        yield from _of_player(running, owner, call.target)
    if isinstance(running, Gather):
        yield from _of_gather(running, owner, call.target)


def _of_gather(gather: Gather, owner: str, target: Target) -> Iterator[str]:
    if (gather.owner, gather.target) != (owner, target):
        yield "the owner of the gathered digits"
    awaits = gather.phase in ("first", "more")
    if gather.ended or awaits != (gather.until is not None) or awaits != (gather.player is None):
        yield "the phase of the gathered digits"
    if gather.player is not None:
        yield from _of_player(gather.player, f"{owner}.{gather.players}", target)


def _of_player(player: Player, owner: str, target: Target) -> Iterator[str]:
    if (player.owner, player.target) != (owner, target):
        yield "the owner of a sound"
    if player.state in ("new", "done") or not 0 <= player.position < len(player.items):
        yield "the position of a sound"
        return
    waits = isinstance(player.items[player.position], Wait)
    if waits if player.state in ("preparing", "playing") else not waits and player.state == "waiting":
        yield "the state of a sound"
    if player.state == "playing" and not player.media:
        yield "the file of a sound"
    if (player.state in ("waiting", "gap")) != (player.until is not None):
        yield "the deadline of a sound"


def of_conference(conference: Conference) -> Iterator[str]:
    if not _is_id(conference.conference_id):
        yield "its id"
    if not plausible(conference.created_at):
        yield "its times"
    if conference.bridge not in BRIDGES[conference.claim]:
        yield "its name and its bridge"
    # A conference that ends before its claim has a result stays in "asked", because the claim gets only one result.
    if conference.ending != (conference.claim == "released") and conference.claim != "asked":
        yield "its end"
    if not conference.ending and conference.claim == "held" and not conference.members:
        yield "it is empty, but has not ended"
    destroyed = conference.bridge == "destroying" and conference.destroy_again_at is None
    if conference.ending and (conference.is_finished or destroyed):
        yield "it has ended"
    members = conference.members.values()
    if len({m.channel_id for m in members}) < len(members) or len({m.call_uuid for m in members}) < len(members):
        yield "a member is listed twice"
    for member_id, member in conference.members.items():
        if member.member_id != member_id or member_id < 1:
            yield "a member's id"
        yield from _of_member(member, conference)
    for owner, player in conference.players.items():
        owned = ids.parse(owner)
        if owned is None or (owned.kind, owned.owner) != (OwnerKind.CONFERENCE, conference.conference_id):
            yield "the owner of a sound"
        yield from _of_player(player, owner, Target("bridge", conference.bridge_id))
    if conference.recording is not None:
        yield from _of_recording(conference.recording, conference)


def _of_recording(recording: Recording, conference: Conference) -> Iterator[str]:
    if recording.bridge_id != conference.bridge_id or recording.auth_id != conference.auth_id:
        yield "the recording's owner"
    if not recording.recording_id or not plausible(recording.started_at, recording.ended_at):
        yield "the recording's id or times"
    if recording.is_finished != recording.handed_on or (recording.state == "stopping" and recording.deadline is None):
        yield "the recording's state"
    if not recording.is_finished and conference.bridge != "ready":
        yield "the recording and the bridge"


def _of_member(member: Member, conference: Conference) -> Iterator[str]:
    where = member.conference_id, member.auth_id, member.element.name
    if where != (conference.conference_id, conference.auth_id, conference.name):
        yield "a member's conference"
    if not (_is_id(member.call_uuid) and member.channel_id):
        yield "a member's call"
    if not plausible(member.joined_at, member.talking_at):
        yield "a member's times"
    state = member.state
    if state not in STATES.get(conference.bridge, ()) or (conference.ending and state != "leaving"):
        yield "a member's state"
    if state not in ("arriving", "leaving") and (state == "waiting") == conference.started:
        yield "a member's wait for the start"
    if state == "leaving" and member.leaving_until is None and not member.removals:
        yield "a member who never leaves"
    yield from _of_sounds(member.enter_sound, "enterSound")
    yield from _of_sounds(member.exit_sound, "exitSound")
    yield from _of_sounds(member.wait_sound, "waitSound")
    own, target = ids.for_member(conference.conference_id, member.member_id), Target("channel", member.channel_id)
    if member.player is not None:
        kind = "hold" if member.player.owner.startswith(f"{own}.hold.") else "wait"
        yield from _of_player(member.player, f"{own}.{kind}.{member.rounds}", target)
    yield from _of_aside(member.aside, f"{own}.aside", target)


def _of_sounds(sounds: ConferenceSound, action: str) -> Iterator[str]:
    if sounds.action != action or (sounds.url is None and (sounds.asking or sounds.items is None)):
        yield "a member's sounds"


def _of_aside(aside: PrivatePlayback, owner: str, target: Target) -> Iterator[str]:
    player = aside.player
    if player is None:
        return
    if not aside.queue or player.items != (aside.queue[0],):
        yield "the sounds queued for a member"
    yield from _of_player(player, f"{owner}.{aside.count}", target)


def _is_id(text: str) -> bool:
    """Return whether the text can be an id: owned ids begin with it and are split at their periods, see `ids`."""
    return bool(text) and "." not in text
