"""World around the core: a strict Asterisk, callers, web servers, names and a clock, with any delay.

Each thing under way stands in a lane: effects by channel or bridge, news by its source, each reply in its own lane.
A lane keeps its order. The test chooses the lane that comes next, and what goes wrong.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from itertools import count
from typing import Literal

from ari_conf.core import commands as api
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.account import Account
from ari_conf.core.engine import Engine
from ari_conf.core.expectations import AsteriskState
from ari_conf.core.placing import CallOptions, CallToPlace, DialAttempt, MachineDetectionSettings
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.core.quality import LineFigures, LineMeasurement
from ari_conf.core.reconciliation.batches import ON_THE_WAY_S, expectations_by_owner, plan_in_batches
from ari_conf.core.reconciliation.plan import ReconciliationPlan, missed_events
from ari_conf.core.reconciliation.plan import expectations as expected
from tests.fakes.asterisk import Asterisk, Refused, lane
from tests.simulation import documents
from tests.simulation.judge import Judge

START = 1_700_000_000_000
CHANCE = Literal["well", "twice", "late again", "lost", "refused", "reply lost"]
PROMPT_MS = 1000
"""Milliseconds within which Asterisk carries out requests and reports events; others may take any time."""
AGAIN_LATE = (ev.ChannelHungUp, ev.BridgeCreated, ev.BridgeDestroyed, ev.PlaybackFinished, ev.RecordingFinished,
              ev.RecordingStarted, ev.DocumentFetched, ev.SoundDocumentFetched, ev.SoundPrepared, ev.NameClaimed,
              ev.CallIdentified)  # fmt: skip
REPLIED = (
    do.AdmitDial,
    do.IdentifyCall,
    do.ReadCodec,
    do.FetchDocument,
    do.FetchSoundDocument,
    do.PrepareSound,
    do.ClaimName,
)
FAILING = (do.RemoveChannel, do.HangUp, do.DestroyBridge, do.MuteChannel, do.StopMusic, do.StopPlayback,
           do.DetectTalking, do.StopRecording, do.DeafenChannel, do.StartMusic, do.AddChannel,
           do.CreateChannel, do.DialChannel)  # fmt: skip
TIMES = (1, 1, 2, 3, 10, 200)
WAYS = (("first",), ("first", "second"), ("unknown", "second"), ("first", "unknown"), ("unknown",), ("first",))
AGAIN = (
    *AGAIN_LATE,
    ev.ChannelCreated,
    ev.ChannelRinging,
    ev.ChannelProgress,
    ev.ChannelAnswered,
    ev.ChannelEnteredBridge,
    ev.ChannelLeftBridge,
    ev.TalkingStarted,
    ev.TalkingFinished,
)
"""Events that may arrive twice without a further effect, unlike a digit or an effect's failure."""


DETECTIONS = (
    None,
    MachineDetectionSettings(),
    MachineDetectionSettings("hangup"),
    MachineDetectionSettings("continue", "http://machine.example/"),
    None,
    MachineDetectionSettings("hangup", "http://machine.example/", time_ms=2000, maximum_words=2),
)


def placed(name: str, number: int, expires_at: int) -> ev.CommandReceived:
    """Return the command to place one or two calls; the number decides over their ways, times and documents."""
    ways = tuple(DialAttempt(way, f"PJSIP/{name}@{way}") for way in WAYS[number % len(WAYS)])
    calls = tuple(CallToPlace(f"placed{name}-{n}", "+4930", "+4940", "", ways) for n in range(1 + number % 7 // 6))
    options = CallOptions(
        answer_url=f"http://document.example/{number}",
        ring_url="http://ring.example/",
        hangup_url="http://hangup.example/",
        fallback_url="http://document.example/0",
        ring_timeout_s=(5, 30, 120)[number % 3],
        hangup_on_ring_s=2 if number % 11 == 0 else None,
        time_limit_s=(20, 3600)[number % 2],
        send_digits="1w2" if number % 5 == 0 else None,
        headers=(("X-PH-Team", "blue"),),
        machine_detection=DETECTIONS[number // 2 % len(DETECTIONS)],
    )
    command = api.PlaceCalls(Account("B" if number % 5 == 0 else "A"), options, calls)
    return ev.CommandReceived(f"place{name}", api.ForAccount(command.account.auth_id, command), expires_at)


def _admitted(dial_id: str, legs: tuple[tuple[str, str], ...]) -> ev.DialAdmitted:
    """Return that these calls may be placed, but those to a number that ends in 7."""
    calls = tuple(
        CallToPlace(uuid, to, "+4940", "", (DialAttempt("first", f"PJSIP/{to}@first"),))
        for uuid, to in legs
        if not to.endswith("7")
    )
    return ev.DialAdmitted(dial_id, calls, ("not allowed",) if len(calls) < len(legs) else ())


@dataclass(frozen=True)
class Lane:
    kind: Literal["effect", "news", "answer", "reply", "look"]
    key: str


class World:
    def __init__(self) -> None:
        self._ids = count(1)
        self.now = START
        self.engine = Engine(self._new_id, "https://conference.example")
        self.asterisk = Asterisk(lambda source, event: self._put(Lane("news", source), event))
        self.judge = Judge(self.engine, self.asterisk)
        self.lanes: dict[Lane, deque[tuple[int, do.Effect | ev.Event]]] = {}
        """Things under way, each with the time at which it began."""
        self.names: dict[tuple[str, str], str] = {}
        """(account, name) -> conference, as the store has it."""
        self.held_elsewhere = False
        """Another process holds the name that is asked for next."""
        self.failing: Counter[type] = Counter()
        """Number of the next effects of each kind that fail."""
        self.lost = False
        self.callers: list[str] = []

    def _new_id(self) -> str:
        return f"id{next(self._ids)}"

    # What may be chosen.

    def arrive(self, number: int) -> None:
        n = next(self._ids)
        channel_id = f"channel{n}"
        self.callers.append(channel_id)
        self.asterisk.call(channel_id)
        auth_id = "B" if number % 5 == 0 else "A"
        source = f"http://document.example/{number}"
        self.receive(ev.CallArrived(channel_id, f"call{n}", f"request{n}", auth_id, "+4930", "100", document=source))

    def place(self, number: int) -> None:
        """Let the API place one or two calls, some of them by two ways."""
        self.receive(placed(f"{next(self._ids)}", number, self.now + 5000))

    def phone(self, number: int) -> None:
        """Let a phone that is dialed ring, send early media, answer, refuse or find its way congested."""
        dialed = [c for c in self.asterisk.channels.values() if c.dialed and not c.up]
        if not dialed:
            return
        channel_id = dialed[number // 10 % len(dialed)].channel_id
        match number % 10:
            case 0 | 1 | 2:
                self.asterisk.ring(channel_id)
            case 3:
                self.asterisk.send_early_media(channel_id)
            case 4 | 5 | 6:
                self.asterisk.pick_up(channel_id)
                self.callers.append(channel_id)
            case 7:
                self.asterisk.refuse(channel_id, 17, 486)
            case 8:
                self.asterisk.refuse(channel_id, 34, 503)
            case 9:
                self.asterisk.refuse(channel_id, 18, 408)

    def hear(self, number: int) -> None:
        """Let the listener hear something of a phone that has answered and is examined."""
        examined = [c.channel_id for c in self.asterisk.channels.values() if c.examined]
        if not examined:
            return
        channel_id = examined[number // 8 % len(examined)]
        self.asterisk.hear(
            (
                ev.PhraseStarted(channel_id, 100),
                ev.PhraseEnded(channel_id, 160),
                ev.PhraseEnded(channel_id, 400, is_speech=False),
                ev.PhraseStarted(channel_id, 120),
                ev.PhraseEnded(channel_id, 160),
                ev.ToneHeard(channel_id),
                ev.PhraseStarted(channel_id, 100),
                ev.ListeningFailed(channel_id, "no audio"),
            )[number % 8]
        )

    def cancel(self, number: int) -> None:
        """Let the API hang up a call that is in no conference; `test_commands` hangs up members."""
        if calls := sorted(key for key, call in self.engine.calls.items() if not call.in_conference):
            call = self.engine.calls[calls[number % len(calls)]]
            addressed = api.ForCall(call.auth_id, call.call_uuid, api.HangUpCall())
            self.receive(ev.CommandReceived(f"cancel{next(self._ids)}", addressed, self.now + 5000))

    def hang_up(self, which: int) -> None:
        if channel := self._caller(which):
            self.asterisk.hang_up(channel)

    def press(self, which: int, digit: str) -> None:
        if channel := self._caller(which):
            self.asterisk.press(channel, digit)

    def talk(self, which: int, starts: bool) -> None:
        if channel := self._caller(which):
            self.asterisk.talk(channel, starts)

    def hold(self, which: int) -> None:
        if channel := self._caller(which):
            self.asterisk.hold(channel)

    def begin_stream(self, which: int) -> None:
        """Begin another stream if the previous one was seen; otherwise nobody could notice the change."""
        if channel := self._caller(which):
            call = self.engine.calls.get(self.engine.log_context(channel).get("call_uuid", ""))
            if call is not None and call.stream is not None:
                self.asterisk.begin_stream(channel)
            self._seen_stream(channel)

    def _seen_stream(self, channel_id: str) -> None:
        source = self.asterisk.channels[channel_id].stream
        self._put(Lane("look", channel_id), ev.StreamSeen(channel_id, source))

    def stop_audio(self, which: int) -> None:
        if channel := self._caller(which):
            self._put(Lane("look", channel), ev.AudioStopped(channel, 1000))

    def send_nothing(self, which: int) -> None:
        if channel := self._caller(which):
            self._put(Lane("look", channel), ev.NothingSent(channel))

    def measure(self, which: int) -> None:
        """Measure a line: a good one, or a bad one."""
        if channel := self._caller(which):
            found = LineFigures(2.0 if which % 3 else 4.4, loss_in=float(which % 7))
            self._put(Lane("look", channel), ev.LineMeasured(channel, LineMeasurement(10.0, found, found)))

    def finish(self, which: int) -> None:
        if playing := list(self.asterisk.playbacks):
            self.asterisk.finish(playing[which % len(playing)])

    def destroy_bridge(self, which: int) -> None:
        if bridges := list(self.asterisk.bridges):
            bridge_id = bridges[which % len(bridges)]
            self.judge.provoked(bridge_id, *self.asterisk.bridges[bridge_id].channels)
            self.asterisk.destroy(bridge_id)

    def fail(self, number: int) -> None:
        """Let effects of one kind fail in Asterisk: a few times, or for a long time."""
        self.failing[FAILING[number % len(FAILING)]] = TIMES[number // 100 % len(TIMES)]

    def compare(self) -> None:
        """Reconcile as on the timer, which finds what happened and was lost, and nothing else."""
        before = {
            key: [e.unsure() if self._busy(e.busy_key) else e for e in expectations]
            for key, expectations in expectations_by_owner(self.engine)
        }
        there = self._looks()
        self.pass_time(round(ON_THE_WAY_S * 1000))
        for found in plan_in_batches(self.engine, before, there, why="timer", ours=bool, busy=self._busy):
            undisturbed = self.lost or self.judge.tainted
            assert undisturbed or found == ReconciliationPlan([], []), (
                f"nothing differs, and something is done: {found}"
            )
            for effect in self.engine.replay(found.repeat, self.now):
                self._under_way(effect)
            for event in found.missed_events:
                self.receive(event)

    def _busy(self, key: str) -> bool:
        return Lane("effect", key) in self.lanes

    def go_on(self, which: int, chance: CHANCE = "well") -> None:
        """Let one of the things under way happen."""
        if self.lanes:
            self._happen(list(self.lanes)[which % len(self.lanes)], chance)

    def pass_time(self, ms: int) -> None:
        until = self.now + ms
        while (deadline := self.engine.deadline) is not None and deadline <= until:
            if self._overdue(deadline):
                continue
            self.now = max(self.now, deadline)
            self.receive(ev.DeadlineReached())
            self.judge.time_moved_on(self.now)
        while self._overdue(until):
            pass
        self.now = until

    def _overdue(self, until: int) -> bool:
        """Let one thing happen that Asterisk owes by then; return True if there was one."""
        late = (where for where, items in self.lanes.items() if items[0][0] + PROMPT_MS < until)
        where = next((where for where in late if where.kind != "reply"), None)
        if where is not None:
            self._happen(where, "well")
        return where is not None

    def settle(self) -> None:
        """Let everything under way happen while no time passes."""
        self._drain()
        while self.lost:
            self._reconcile()
            self._drain()
        self.judge.settled()

    def _drain(self) -> None:
        while self.lanes:
            self._happen(next(iter(self.lanes)), "well")

    def end(self) -> None:
        """Stop all failures, check that everything recovers, then let all callers hang up."""
        self.calm_down()
        self.judge.calm()
        for channel_id in list(self.asterisk.channels):
            self.asterisk.hang_up(channel_id)
        self.calm_down()
        self.judge.over(self.names)

    def calm_down(self) -> None:
        """Stop all failures, and wait until everything that failed has been requested again."""
        self.failing.clear()
        self.settle()
        for _ in range(14):
            self.pass_time(5000)
            self.settle()

    # How things happen.

    def receive(self, event: ev.Event) -> None:
        self.judge.before(event, self.now)
        effects = self.engine.handle_event(event, self.now)
        self.judge.after(event, effects, self.now)
        for effect in effects:
            self._under_way(effect)
            if isinstance(effect, do.ReleaseName):
                self._release(effect)
        self.judge.gone(self.names)

    def _under_way(self, effect: do.Effect) -> None:
        if isinstance(effect, do.Ring):
            return  # nothing follows from it
        key = lane(effect)
        if key is not None:
            self._put(Lane("effect", key), effect)
        elif isinstance(effect, REPLIED):
            self._put(Lane("reply", str(next(self._ids))), effect)

    def _release(self, effect: do.ReleaseName) -> None:
        # The release is written with the step, and applies only to that conference.
        gone = (effect.auth_id, effect.name), effect.conference_id
        self.names = dict(item for item in self.names.items() if item != gone)

    def _put(self, lane: Lane, item: do.Effect | ev.Event) -> None:
        self.lanes.setdefault(lane, deque()).append((self.now, item))

    def _happen(self, lane: Lane, chance: CHANCE) -> None:
        _, item = self.lanes[lane].popleft()
        if not self.lanes[lane]:
            del self.lanes[lane]
        if isinstance(item, do.Effect):
            if lane.kind == "effect":
                self._obey(item, chance)
            else:
                self._reply(item, chance)
            return
        if chance == "lost" and lane.kind == "news":
            # Only a broken connection loses news: at the next one the state is compared with Asterisk's.
            self.lost = True
            self.judge.provoked(*self.engine.conferences, *self.asterisk.channels)
            return
        if chance == "late again" and isinstance(item, AGAIN_LATE):
            self._put(Lane("reply", str(next(self._ids))), item)
        self.receive(item)
        if chance == "twice" and isinstance(item, AGAIN):
            self.receive(item)

    def _obey(self, effect: do.Effect, chance: CHANCE) -> None:
        key = str(next(self._ids))
        if self.failing[type(effect)] > 0:
            self.failing[type(effect)] -= 1
            chance = "refused"
        if chance in ("refused", "reply lost"):
            self.judge.provoked(*(getattr(effect, field, "") for field in ("channel_id", "bridge_id", "source_id")))
            if isinstance(effect, do.PlayMedia | do.StopPlayback):
                self.judge.provoked(effect.target.id)
        if chance == "refused":
            self._put(Lane("answer", key), ev.EffectFailed(effect, "Asterisk is tired"))
            return
        try:
            self.asterisk.obey(effect)
        except Refused as refused:
            self.judge.refused(effect, refused)
            self._put(Lane("answer", key), ev.EffectFailed(effect, refused.reason, refused.gone))
            return
        if chance == "reply lost":
            self._put(Lane("answer", key), ev.EffectFailed(effect, "no answer in time"))
        elif isinstance(effect, do.CreateBridge):
            self._put(Lane("answer", key), ev.BridgeCreated(effect.bridge_id))
        elif isinstance(effect, do.DestroyBridge):
            self._put(Lane("answer", key), ev.BridgeDestroyed(effect.bridge_id))

    def _reply(self, effect: do.Effect, chance: CHANCE) -> None:
        failed = chance in ("lost", "refused", "reply lost")
        reply = self._answer(effect, failed)
        if chance == "late again" and isinstance(reply, AGAIN_LATE):
            self._put(Lane("reply", str(next(self._ids))), reply)
        self.receive(reply)

    def _answer(self, effect: do.Effect, failed: bool) -> ev.Event:
        match effect:
            case do.IdentifyCall(call_uuid, _, auth_id):
                account = Account(
                    auth_id, fallback_url="http://document.example/0", hangup_url="http://hangup.example/"
                )
                return ev.CallIdentified(call_uuid, None if failed else account, (("X-PH-Team", "blue"),))
            case do.ReadCodec(call_uuid):
                return ev.CodecRead(call_uuid, not failed)
            case do.AdmitDial(dial_id, _, legs):
                return _admitted(dial_id, () if failed else legs)
            case do.FetchDocument(fetch_id, _, source):
                if failed:
                    invalid = len(fetch_id) % 2 == 0
                    kind = ProblemKind.DOCUMENT_INVALID if invalid else ProblemKind.DOCUMENT_UNREACHABLE
                    return ev.DocumentFailed(fetch_id, kind, "the server is away")
                return ev.DocumentFetched(fetch_id, documents.document(int(source.rpartition("/")[2])))
            case do.FetchSoundDocument(fetch_id, _, url):
                if failed or url.endswith("fails"):
                    return ev.SoundDocumentFailed(fetch_id, ProblemKind.SOUND_DOCUMENT_FAILED, "the server is away")
                return ev.SoundDocumentFetched(fetch_id, documents.sounds(url))
            case do.PrepareSound(playback_id, sound):
                if failed or "broken" in getattr(sound, "url", ""):
                    return ev.SoundFailed(playback_id, sound, ProblemKind.SOUND_UNPLAYABLE, "no sound")
                return ev.SoundPrepared(playback_id, f"sound:{playback_id}")
            case do.ClaimName(auth_id, name, conference_id):
                if failed:
                    return ev.NameTaken(conference_id, "another")
                self.names[auth_id, name] = conference_id
                return ev.NameClaimed(conference_id)
        raise TypeError(f"nobody replies to {type(effect).__name__}")

    def _reconcile(self) -> None:
        """Reconcile on a new connection: receive each difference between the state and Asterisk as a missed event."""
        self.lost = False
        for event in missed_events(expected(self.engine), self._looks()):
            self.receive(event)
        for call in list(self.engine.calls.values()):
            channel = self.asterisk.channels.get(call.channel_id)
            if channel is not None and channel.on_hold != call.on_hold:
                held = ev.PhoneHeld if channel.on_hold else ev.PhoneResumed
                self.receive(held(call.channel_id))

    def _looks(self) -> AsteriskState:
        return AsteriskState(
            {c.channel_id: c.up for c in self.asterisk.channels.values()},
            {b.bridge_id: frozenset(b.channels) for b in self.asterisk.bridges.values()},
            frozenset(self.asterisk.playbacks),
            frozenset(self.asterisk.recordings),
            frozenset(c.channel_id for c in self.asterisk.channels.values() if c.ringing and not c.up),
        )

    def _caller(self, which: int) -> str | None:
        alive = [c for c in self.callers if c in self.asterisk.channels]
        return alive[which % len(alive)] if alive else None
