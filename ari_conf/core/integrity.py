"""What a call and a conference can be like: what was read back is held against it, so that no event meets later what
none of ours can be. The simulation holds everything that it ever comes to against it as well.

Each function yields what is not as it can be, in a few words; nothing if all is well. Whether calls and conferences
refer to each other as they must is seen in `giving_up`.
"""

from __future__ import annotations

from collections.abc import Iterator

from ari_conf.core import ids
from ari_conf.core.aside import Aside
from ari_conf.core.call import Call
from ari_conf.core.callbacks import plausible
from ari_conf.core.conference import Conference
from ari_conf.core.effects import Target
from ari_conf.core.elements import Conference as Element
from ari_conf.core.elements import Wait
from ari_conf.core.gather import Gather
from ari_conf.core.member import Member, Sounds
from ari_conf.core.player import Player
from ari_conf.core.recording import Recording

BRIDGES = {
    "asked": ("none",),
    "held": ("creating", "ready"),
    "released": ("none", "creating", "ready", "destroying"),
}
"""Which bridge a conference can have while its name is being claimed, while it is held, and after that."""
STATES = {
    "none": ("arriving",),
    "creating": ("waiting", "joining", "held", "leaving"),
    "ready": ("waiting", "adding", "mixed", "parting", "held", "leaving"),
    "destroying": (),
}
"""Which members a conference can have, by its bridge."""


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
    if call.over:
        if isinstance(running, Player | Gather):
            yield "it is being hung up, and goes on"
        return
    if call.account is None:
        if running is not None or call.fetching is not None:
            yield "it runs, and nobody knows whose it is"
        return
    if (running is None) == (call.fetching is None):
        yield "what it does"
    if not 0 <= call.position <= len(call.elements):
        yield "its place in the document"
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
        yield "whose digits are gathered"
    awaits = gather.phase in ("first", "more")
    if gather.ended or awaits != (gather.until is not None) or awaits != (gather.player is None):
        yield "what is awaited of its digits"
    if gather.player is not None:
        yield from _of_player(gather.player, f"{owner}.{gather.players}", target)


def _of_player(player: Player, owner: str, target: Target) -> Iterator[str]:
    if (player.owner, player.target) != (owner, target):
        yield "whose sound it is"
    if player.state in ("new", "done") or not 0 <= player.position < len(player.items):
        yield "where the sound is"
        return
    waits = isinstance(player.items[player.position], Wait)
    if waits if player.state in ("preparing", "playing") else not waits and player.state == "waiting":
        yield "what is played"
    if player.state == "playing" and not player.media:
        yield "the sound's file"
    if (player.state in ("waiting", "gap")) != (player.until is not None):
        yield "until when the sound waits"


def of_conference(conference: Conference) -> Iterator[str]:
    if not _is_id(conference.conference_id):
        yield "its id"
    if not plausible(conference.created_at):
        yield "its times"
    if conference.bridge not in BRIDGES[conference.claim]:
        yield "its name and its bridge"
    # Nobody answers a claim twice: what ends before its name is claimed has still asked.
    if conference.ending != (conference.claim == "released") and conference.claim != "asked":
        yield "its end"
    if not conference.ending and conference.claim == "held" and not conference.members:
        yield "it is empty, and goes on"
    destroyed = conference.bridge == "destroying" and conference.destroy_again_at is None
    if conference.ending and (conference.done or destroyed):
        yield "it has ended"
    members = conference.members.values()
    if len({m.channel_id for m in members}) < len(members) or len({m.call_uuid for m in members}) < len(members):
        yield "a member is in twice"
    for member_id, member in conference.members.items():
        if member.member_id != member_id or member_id < 1:
            yield "a member's id"
        yield from _of_member(member, conference)
    for owner, player in conference.players.items():
        if not owner.startswith(f"{ids.for_conference(conference.conference_id)}."):
            yield "whose sound it is"
        yield from _of_player(player, owner, Target("bridge", conference.bridge_id))
    if conference.recording is not None:
        yield from _of_recording(conference.recording, conference)


def _of_recording(recording: Recording, conference: Conference) -> Iterator[str]:
    if recording.bridge_id != conference.bridge_id or recording.auth_id != conference.auth_id:
        yield "whose recording it is"
    if not recording.recording_id or not plausible(recording.started_at, recording.ended_at):
        yield "the recording's id or times"
    if recording.finished != recording.handed_on or (recording.state == "stopping" and recording.deadline is None):
        yield "what becomes of the recording"
    if not recording.finished and conference.bridge != "ready":
        yield "the recording and the bridge"


def _of_member(member: Member, conference: Conference) -> Iterator[str]:
    where = member.conference_id, member.auth_id, member.element.name
    if where != (conference.conference_id, conference.auth_id, conference.name):
        yield "whose member it is"
    if not (_is_id(member.call_uuid) and member.channel_id):
        yield "a member's call"
    if not plausible(member.joined_at, member.talking_at):
        yield "a member's times"
    state = member.state
    if state not in STATES.get(conference.bridge, ()) or (conference.ending and state != "leaving"):
        yield "what a member does"
    if state not in ("arriving", "leaving") and (state == "waiting") == conference.started:
        yield "what a member waits for"
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


def _of_sounds(sounds: Sounds, action: str) -> Iterator[str]:
    if sounds.action != action or (sounds.url is None and (sounds.asking or sounds.items is None)):
        yield "a member's sounds"


def _of_aside(aside: Aside, owner: str, target: Target) -> Iterator[str]:
    player = aside.player
    if player is None:
        return
    if not aside.queue or player.items != (aside.queue[0],):
        yield "the sounds queued for a member"
    yield from _of_player(player, f"{owner}.{aside.count}", target)


def _is_id(text: str) -> bool:
    """Ids of what it owns begin with it, and are cut at the full stops: see `ids`."""
    return bool(text) and "." not in text
