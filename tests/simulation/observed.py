"""What can be seen of a run from outside, in words that two runs share.

The observable result, and what may differ between a run that was cut and one that was not:

- Requests whose delivery is ordered (callbacks, actions whose reply is ignored, hangup URLs, recordings that are handed
  on, problems, replies to commands): the same, in the same order, with the same parameters, timestamps and sequence
  numbers among them. They are written with the step that gave them, so nothing of it may differ.
- Requests for documents and sounds: the same, in the same order, but one may be made again: whether the first one was
  answered died with who made it. It names the same call, URL and parameters, so a server sees that it is the same.
- Each channel after each deed: answered, in which bridge and with whom, muted, deaf, music, what is played, whether
  talking is detected. The same after each deed: who takes over brings it about before anything else happens.
- Digits sent to phones: some may be missing, none is sent twice. Nobody can say whether the last ones were sent, and
  one too few is found by a receiver (a PIN is too short) while one too many may be taken for another's.
- Digits pressed and talking that began or ended while nobody listened: Asterisk tells it once and keeps nothing of it,
  so it did not happen. The run it is compared with is one without it.
- Notes of who spoke (NoteTalk): a talk may come in two pieces, or end at the cut, for the same reason.
- What is under way at the same time (two channels that are added, two documents that are asked for) may come about in
  any order, in an uncut run as well. So the result must be that of some uncut run: if not of the one in which each
  thing comes about as it was begun, then of one of those in which the order is drawn by lot.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ari_conf.core import effects as do
from tests.simulation.mortal import Mortal


def scene(world: Mortal) -> dict[str, Any]:
    """Who is where and hears what, now."""
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


def told(world: Mortal) -> dict[str, list[str]]:
    """All that is written to be delivered, in the order of its lane: between lanes none is promised."""
    lanes: dict[str, list[str]] = {}
    for effect in world.written.outbox:
        if not isinstance(effect, do.NoteTalk):
            keys = (getattr(effect, name, None) for name in ("lane", "recording_id", "command_id", "call_uuid"))
            lanes.setdefault(next(filter(None, keys), ""), []).append(repr(effect))
    return lanes


def asked(world: Mortal) -> list[str]:
    """Requests for documents and sounds."""
    return [repr(replace(request, fetch_id="")) for request in world.requests]


def left(world: Mortal) -> list[str]:
    """What must be nothing in the end."""
    asterisk = world.asterisk
    found = {"channel": asterisk.channels, "bridge": asterisk.bridges, "playback": asterisk.playbacks,
             "recording": asterisk.recordings, "call": world.directory.calls, "name": world.names,
             "conference": world.directory.conferences, "written": world.written.state,
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
    """Who entered left, once; whose call there was has ended, once; each command was replied to, once."""
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
        if isinstance(effect, do.Reply):
            replied.append(effect.command_id)
    assert not any(inside.values()), f"they never left: {inside}"
    assert len(set(ended)) == len(ended), "a call has ended twice"
    assert len(set(replied)) == len(replied), "a command was obeyed twice"
    recorded = [e.recording_id for e in world.written.outbox if isinstance(e, do.StoreRecording)]
    assert len(set(recorded)) == len(recorded), "a recording was handed on twice"
    assert set(recorded) >= set(world.recorded), "a recording was never handed on"
