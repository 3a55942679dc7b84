"""Bytes as a course of events: ARI's messages in any order and about anything, replies that come, fail or never come.

Nothing here plays an Asterisk: what is told need not make sense. What must hold is that the core takes it, that it
never turns in one place, and that in the end, when all channels are gone, nothing is left of any call.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from ari_conf.ari.translate import EVENTS, to_event
from ari_conf.core import effects as do
from ari_conf.core import elements as el
from ari_conf.core import events as ev
from ari_conf.core.account import Account
from ari_conf.core.call import Call
from ari_conf.core.conference import Conference
from ari_conf.core.directory import Directory
from ari_conf.core.snapshot import restore, snapshot
from tests.simulation import documents

START = 1_700_000_000_000
CHANNELS = tuple(f"channel{n}" for n in range(5))
DIGITS = "0123456789*#ABCDx\u0663"
MOST_EFFECTS = 2000
"""Of one step: of a document whose elements all end at once there are as many problems."""
MOST_STEPS = 200
MOMENTS = (0, 1, 100, 500, 1000, 2000, 6000, 60_000)
ACCOUNT = Account("A", fallback_url="http://document.example/fallback", hangup_url="http://hangup.example/")
OWED = (do.IdentifyCall, do.FetchDocument, do.FetchSounds, do.PrepareSound, do.ClaimName)
ROOMS = (el.Conference("standup", record=True, enter_sound="beep:1", callback_url="http://callback.example/"),
         el.Conference("standup", digits_match=("1", "12"), floor_event=True, stay_alone=False, time_limit=30),
         el.Conference("standup", wait_sound="http://sounds.example/two", start_conference_on_enter=False))  # fmt: skip


class Course:
    def __init__(self) -> None:
        ids = count(1)
        self._new_id: Callable[[], str] = lambda: f"id{next(ids)}"
        self.directory = Directory(self._new_id)
        self.now = START
        self.under_way: list[do.Effect] = []
        """What was given and is not replied to yet."""
        self.ids: list[str] = ["", "x", *CHANNELS]
        """All that were ever named: of channels, bridges, playbacks, recordings."""

    def step(self, kind: int, a: int, b: int) -> None:
        if kind < 96:
            event = to_event(self._message(kind, a, b), self._new_id)
            if event is not None:
                self.receive(event)
        elif kind < 224:
            self._reply(a, b)
        else:
            self._pass(MOMENTS[a % len(MOMENTS)])

    def receive(self, event: ev.Event) -> None:
        effects = self.directory.receive(event, self.now)
        assert len(effects) <= MOST_EFFECTS, "one step without an end"
        for effect in effects:
            self._name(effect)
        self.under_way += [e for e in effects if not isinstance(e, do.PostCallback | do.ReportProblem | do.WarmSounds)]
        # Replies are owed; of what Asterisk does some is never heard of again.
        owed = [e for e in self.under_way if isinstance(e, OWED)]
        self.under_way = owed + [e for e in self.under_way if not isinstance(e, OWED)][-100:]

    def end(self) -> None:
        """All channels are gone, and what is asked fails: as it may, and then since nothing is there any more."""
        for call in list(self.directory.calls.values()):
            self.receive(ev.ChannelHungUp(call.channel_id))
        for turn in range(60):
            if not self.directory.calls and not self.directory.conferences:
                break
            self._pass(1000 if turn < 30 else 60_000)
            while self.under_way:
                self._fail(self.under_way.pop(), gone=turn >= 30)
        assert not self.directory.calls, "a call is stuck"
        assert not self.directory.conferences, "a conference is stuck"

    def written(self) -> None:
        for shelf, kind in ((self.directory.calls, Call), (self.directory.conferences, Conference)):
            for thing in shelf.values():
                assert restore(json.loads(json.dumps(snapshot(thing))), kind) == thing  # type: ignore[arg-type]

    # Asterisk.

    def _message(self, kind: int, a: int, b: int) -> dict[str, Any]:
        one, other = self.ids[a % len(self.ids)], self.ids[b % len(self.ids)]
        channel = {"id": CHANNELS[a % len(CHANNELS)] if kind % 3 else one, "name": "PJSIP/x-1", "state": "Up"}
        return {
            "type": EVENTS[kind % len(EVENTS)] if kind >= 32 else "StasisStart",
            "args": ["A", f"http://document.example/{b}", "POST", ""][: a % 5],
            "channel": channel,
            "bridge": {"id": other} if kind % 2 else None,
            "digit": DIGITS[b % len(DIGITS)],
            "playback": {"id": other, "state": ("done", "failed")[kind % 2]},
            "recording": {"name": f"A/{one}", "target_uri": f"bridge:{other}"},
            "cause": (16, 0, 999, -1, "x", None)[b % 6],
        }

    def _name(self, effect: do.Effect) -> None:
        for name in ("bridge_id", "playback_id", "recording_id", "conference_id"):
            found = getattr(effect, name, None)
            if found and found not in self.ids:
                self.ids.append(found)
        del self.ids[8:-60]

    # The others.

    def _reply(self, a: int, b: int) -> None:
        if not self.under_way:
            return
        effect = self.under_way.pop(a % len(self.under_way)) if b % 8 else self.under_way[a % len(self.under_way)]
        if b % 5 == 4:
            self._fail(effect)
        else:
            for event in self._well(effect, b):
                self.receive(event)

    def _fail(self, effect: do.Effect, gone: bool = False) -> None:
        self.receive(ev.EffectFailed(effect, "Asterisk is tired", gone or len(self.under_way) % 2 == 0))

    def _well(self, effect: do.Effect, b: int) -> Iterator[ev.Event]:
        match effect:
            case do.IdentifyCall(call_uuid):
                yield ev.CallIdentified(call_uuid, ACCOUNT if b % 7 else None)
            case do.FetchDocument(fetch_id):
                room = (ROOMS[b % 3], el.Wait(1)) if b % 2 else documents.document(b)
                yield (
                    ev.DocumentFailed(fetch_id, b % 2 == 0, "away")
                    if b % 9 == 8
                    else ev.DocumentFetched(fetch_id, room)
                )
            case do.FetchSounds(fetch_id):
                found = documents.sounds("http://sounds.example/two") if b % 2 else ()
                yield ev.SoundsFetched(fetch_id, found) if b % 3 else ev.SoundsFailed(fetch_id, "away")
            case do.PrepareSound(playback_id, sound):
                broken = ev.SoundFailed(playback_id, sound, "no sound")
                yield ev.SoundPrepared(playback_id, "sound:x") if b % 4 else broken
            case do.ClaimName(_, _, conference_id):
                yield ev.NameClaimed(conference_id) if b % 9 else ev.NameRefused(conference_id, "another")
            case do.CreateBridge(bridge_id):
                yield ev.BridgeCreated(bridge_id)
            case do.DestroyBridge(bridge_id):
                yield ev.BridgeDestroyed(bridge_id)
            case do.AddChannel(channel_id, bridge_id):
                yield ev.ChannelEnteredBridge(channel_id, bridge_id)
            case do.RemoveChannel(channel_id, bridge_id):
                yield ev.ChannelLeftBridge(channel_id, bridge_id)
            case do.HangUp(channel_id):
                yield ev.ChannelHungUp(channel_id)
            case do.PlayMedia(_, playback_id) | do.StopPlayback(_, playback_id):
                yield ev.PlaybackFinished(playback_id, failed=b % 6 == 5)
            case do.StartRecording(bridge_id, recording_id):
                yield ev.RecordingStarted(bridge_id, recording_id)
            case do.StopRecording(bridge_id, recording_id):
                yield ev.RecordingFinished(bridge_id, recording_id, failed=b % 2 == 0)

    def _pass(self, ms: int) -> None:
        until, turns = self.now + ms, 0
        while (deadline := self.directory.deadline) is not None and deadline <= until:
            turns = turns + 1 if deadline <= self.now else 0
            assert turns < 50, "a deadline that never passes: a busy loop"
            self.now = max(self.now, deadline)
            self.receive(ev.TimePassed())
        self.now = until


def play(given: bytes) -> None:
    course = Course()
    for at in range(0, min(len(given), 3 * MOST_STEPS) - 2, 3):
        course.step(given[at], given[at + 1], given[at + 2])
    course.written()
    course.end()
