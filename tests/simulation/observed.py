"""Observable result of a run, in words that two runs share.

It may differ between a run that was cut and one that was not only as follows:

- Requests with ordered delivery (callbacks, actions whose reply is ignored, hangup URLs, recordings that are handed on,
  problems, replies to commands) are the same, in the same order, with the same parameters, including timestamps and
  sequence numbers. They are written with the step that created them, so nothing in them may differ.
- Requests for documents and sounds are the same, in the same order, but one may be repeated: only the process that died
  knew whether it was answered. The repetition has the same call, URL and parameters, so a server recognizes it.
- The scene of each channel (answered, its bridge and the others in it, muted, deaf, music, what is played, whether
  talking is detected) is the same after each deed: the next process restores it before anything else happens.
- Digits sent to phones: some may be missing, none is sent twice. Nobody can say whether the last ones were sent. A
  receiver notices one too few (a PIN is too short), but may take one too many for a digit of another input.
- Digits pressed, and talking that began or ended, while nobody received events: Asterisk reports them once and keeps no
  record, so they did not happen. The run is compared with one without them.
- Speech notes (AddSpeechNote), and the talks of the history: a talk may come in two pieces, or end at the cut, for the
  same reason.
- Things under way at the same time (two channels being added, two documents being requested) may happen in any order,
  in an uncut run as well. The result must therefore be that of some uncut run: of the one in which things happen in the
  order in which they began, or of one in which the order is random.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ari_conf.core import effects as do
from tests.simulation.mortal import Mortal


def scene(world: Mortal) -> dict[str, Any]:
    """Return where each channel is now, and what it hears."""
    return {channel_id: _channel(world, channel_id) for channel_id in sorted(world.asterisk.channels)} | {
        f"bridge {at}": _bridge(world, bridge_id) for at, bridge_id in enumerate(world.asterisk.bridges)
    }


def _channel(world: Mortal, channel_id: str) -> tuple[object, ...]:
    c = world.asterisk.channels[channel_id]
    playing = tuple(world.asterisk.playbacks[p].playback_id for p in c.playbacks)
    mix = tuple(sorted(world.asterisk.mix(channel_id) & set(world.asterisk.channels)))
    return ("up" if c.up else "ringing", c.bridge, mix, c.muted, c.deaf, c.music, playing, c.silence_ms, c.beeps)


def _bridge(world: Mortal, bridge_id: str) -> tuple[object, ...]:
    bridge = world.asterisk.bridges[bridge_id]
    recordings = tuple(sorted(r for r, b in world.asterisk.recordings.items() if b == bridge_id))
    return (bridge_id, tuple(sorted(bridge.channels)), tuple(bridge.playbacks), recordings)


def reported(world: Mortal) -> dict[str, list[str]]:
    """Return all written deliveries by partition, in order; no order is promised between partitions."""
    lanes: dict[str, list[str]] = {}
    for effect in world.written.outbox:
        if not isinstance(effect, do.AddSpeechNote | do.ArchiveTalks):
            keys = (getattr(effect, name, None) for name in ("lane", "recording_id", "command_id", "call_uuid"))
            if isinstance(effect, do.ArchiveConference):
                keys = iter([f"the end of {effect.conference_id}"])
            if isinstance(effect, do.ArchiveMember):
                effect = msgspec.structs.replace(effect, talk_ms=None, talks=())
            lanes.setdefault(next(filter(None, keys), ""), []).append(repr(effect))
    return lanes


def asked(world: Mortal) -> list[str]:
    """Return the requests for documents and sounds."""
    return [repr(msgspec.structs.replace(request, fetch_id="")) for request in world.requests]


def left(world: Mortal) -> list[str]:
    """Return what is left; in the end it must be empty."""
    asterisk = world.asterisk
    found = {"channel": asterisk.channels, "bridge": asterisk.bridges, "playback": asterisk.playbacks,
             "recording": asterisk.recordings, "call": world.engine.calls, "name": world.names,
             "conference": world.engine.conferences, "written": world.written.state,
             "command": world.commanded}  # fmt: skip
    return [f"{kind} {id}" for kind, all_of_them in found.items() for id in all_of_them]


def sequences(world: Mortal) -> None:
    """ "1, 2, 3 … within the conference, without gaps" """
    numbers: dict[str, list[int]] = {}
    for effect in world.written.outbox:
        whole = effect.callback if isinstance(effect, do.StoreRecording) else effect
        params = dict(whole.params) if isinstance(whole, do.PostCallback) else {}
        if "ConferenceSequence" in params:
            numbers.setdefault(params["ConferenceUUID"], []).append(int(params["ConferenceSequence"]))
    for conference_id, found in numbers.items():
        assert found == list(range(1, len(found) + 1)), f"{conference_id}: {found}"


def fates(world: Mortal) -> None:
    """Check that members who entered left once, and that each call ends, command is replied to and
    recording is handed on only once.
    """
    inside: dict[str, int] = {}
    ended: list[str] = []
    replied: list[str] = []
    for effect in world.written.outbox:
        params = dict(effect.params) if isinstance(effect, do.PostCallback) else {}
        action, member = params.get("ConferenceAction"), params.get("ConferenceMemberID", "")
        if action in ("enter", "exit"):
            inside[member] = inside.get(member, 0) + (1 if action == "enter" else -1)
            assert inside[member] in (0, 1), f"{action} of {member} once more"
        if params.get("Event") == "Hangup":
            ended.append(params["CallUUID"])
        if isinstance(effect, do.CommandReply):
            replied.append(effect.command_id)
    assert not any(inside.values()), f"they never left: {inside}"
    assert len(set(ended)) == len(ended), "a call has ended twice"
    assert len(set(replied)) == len(replied), "a command was obeyed twice"
    recorded = [e.recording_id for e in world.written.outbox if isinstance(e, do.StoreRecording)]
    assert len(set(recorded)) == len(recorded), "a recording was handed on twice"
    assert set(recorded) >= set(world.recorded), "a recording was never handed on"


def history(world: Mortal, *, broken: bool = False) -> None:
    """Check that the history got each call, each conference and each membership that has ended, once. `broken`: someone
    may have been counted whose entry failed."""
    calls = [e.call_uuid for e in world.written.outbox if isinstance(e, do.ArchiveCall)]
    assert sorted(calls) == sorted(world.written.begun - set(world.engine.calls)), "calls of the history"
    members = [(e.conference_id, e.member_id) for e in world.written.outbox if isinstance(e, do.ArchiveMember)]
    assert len(set(members)) == len(members), "a member left twice"
    conferences = [e for e in world.written.outbox if isinstance(e, do.ArchiveConference)]
    assert len({e.conference_id for e in conferences}) == len(conferences), "a conference ended twice"
    for conference in conferences:
        known = sum(one == conference.conference_id for one, _ in members)
        assert known <= conference.members if broken else known == conference.members, conference
    ended = {one for one, _ in members} - set(world.engine.conferences)
    assert ended <= {e.conference_id for e in conferences}, "a conference is missing in the history"
