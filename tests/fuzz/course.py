"""Bytes as a sequence of events: ARI messages in any order and about anything, and replies that arrive, fail or never
come.

This module does not simulate an Asterisk: the events need not make sense. The core must accept them and must never loop
without progress. In the end, when all channels are gone, nothing of any call may be left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from ari_conf.ari.translate import EVENTS, to_event
from ari_conf.core import effects as do
from ari_conf.core import elements as el
from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.core.account import Account
from ari_conf.core.engine import Engine
from ari_conf.core.problem_kinds import ProblemKind
from tests.core.copies import copied
from tests.simulation import documents

START = 1_700_000_000_000
CHANNELS = tuple(f"channel{n}" for n in range(5))
DIGITS = "0123456789*#ABCDx\u0663"
MAX_EFFECTS = 2000
"""The limit of one step: a document whose elements all end immediately causes as many problems."""
MAX_STEPS = 200
MOMENTS = (0, 1, 100, 500, 1000, 2000, 6000, 60_000)
ACCOUNT = Account("A", fallback_url="http://document.example/fallback", hangup_url="http://hangup.example/")
OWED = (do.IdentifyCall, do.FetchDocument, do.FetchSoundDocument, do.PrepareSound, do.ClaimName)
ROOMS = (el.Conference("standup", record=True, enter_sound="beep:1", callback_url="http://callback.example/"),
         el.Conference("standup", digits_match=("1", "12"), floor_event=True, stay_alone=False, time_limit=30),
         el.Conference("standup", wait_sound="http://sounds.example/two", start_conference_on_enter=False))  # fmt: skip
FAILURES = ProblemKind.DOCUMENT_INVALID, ProblemKind.DOCUMENT_UNREACHABLE


class Course:
    def __init__(self) -> None:
        ids = count(1)
        self._new_id: Callable[[], str] = lambda: f"id{next(ids)}"
        self.engine = Engine(self._new_id)
        self.now = START
        self.under_way: list[do.Effect] = []
        """Effects without a reply so far."""
        self.ids: list[str] = ["", "x", *CHANNELS]
        """All ids that were ever used: of channels, bridges, playbacks, recordings."""

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
        effects = self.engine.handle_event(event, self.now)
        assert len(effects) <= MAX_EFFECTS, "one step without an end"
        for effect in effects:
            self._name(effect)
        self.under_way += [e for e in effects if not isinstance(e, do.PostCallback | do.ReportProblem | do.WarmSounds)]
        # Replies are guaranteed; effects on Asterisk may stay without any event.
        owed = [e for e in self.under_way if isinstance(e, OWED)]
        self.under_way = owed + [e for e in self.under_way if not isinstance(e, OWED)][-100:]

    def end(self) -> None:
        """End all channels and let all pending effects fail: first with random reasons, then because the objects no
        longer exist."""
        for call in list(self.engine.calls.values()):
            self.receive(ev.ChannelHungUp(call.channel_id))
        for turn in range(60):
            if not self.engine.calls and not self.engine.conferences:
                break
            self._pass(1000 if turn < 30 else 60_000)
            while self.under_way:
                self._fail(self.under_way.pop(), gone=turn >= 30)
        assert not self.engine.calls, "a call is stuck"
        assert not self.engine.conferences, "a conference is stuck"

    def written(self) -> None:
        for thing in (*self.engine.calls.values(), *self.engine.conferences.values()):
            assert copied(thing) == thing

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
            "recording": {"name": str(ids.RecordingName("A", ids.conference_of(other) or other, one))},
            "cause": (16, 0, 999, -1, "x", None)[b % 6],
        }

    def _name(self, effect: do.Effect) -> None:
        for name in ("bridge_id", "playback_id", "recording_id", "conference_id"):
            found = getattr(effect, name, None)
            if found and found not in self.ids:
                self.ids.append(found)
        del self.ids[8:-60]

    # Other services.

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
                    ev.DocumentFailed(fetch_id, FAILURES[b % 2], "away")
                    if b % 9 == 8
                    else ev.DocumentFetched(fetch_id, room)
                )
            case do.FetchSoundDocument(fetch_id):
                found = documents.sounds("http://sounds.example/two") if b % 2 else ()
                away = ev.SoundDocumentFailed(fetch_id, ProblemKind.SOUND_DOCUMENT_FAILED, "away")
                yield ev.SoundDocumentFetched(fetch_id, found) if b % 3 else away
            case do.PrepareSound(playback_id, sound):
                broken = ev.SoundFailed(playback_id, sound, ProblemKind.SOUND_UNPLAYABLE, "no sound")
                yield ev.SoundPrepared(playback_id, "sound:x") if b % 4 else broken
            case do.ClaimName(_, _, conference_id):
                yield ev.NameClaimed(conference_id) if b % 9 else ev.NameTaken(conference_id, "another")
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
            case do.StartRecording(source_id, recording_id, auth_id):
                of = ids.recording_name(source_id, auth_id, recording_id)
                yield ev.RecordingStarted(of.conference_id, recording_id, False, of.call_uuid, of.track)
            case do.StopRecording(source_id, recording_id, auth_id):
                of = ids.recording_name(source_id, auth_id, recording_id)
                yield ev.RecordingFinished(of.conference_id, recording_id, b % 2 == 0, of.call_uuid, of.track)

    def _pass(self, ms: int) -> None:
        until, turns = self.now + ms, 0
        while (deadline := self.engine.deadline) is not None and deadline <= until:
            turns = turns + 1 if deadline <= self.now else 0
            assert turns < 50, "a deadline that never passes: a busy loop"
            self.now = max(self.now, deadline)
            self.receive(ev.DeadlineReached())
        self.now = until


def play(given: bytes) -> None:
    course = Course()
    for at in range(0, min(len(given), 3 * MAX_STEPS) - 2, 3):
        course.step(given[at], given[at + 1], given[at + 2])
    course.written()
    course.end()
