"""Application that may die at every step, in a world that lives on: only what is written survives.

In one step, an event is taken, decided and written, and its effects are carried out one after another. `dies` contains
the moments, counted from the first, before which the application dies. It rises immediately, or after the deeds that
happen while it is away, as in `server.reconciler`: it restores the state, compares it with Asterisk, and
handles missed events and repeated effects. It may die at these moments as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, Protocol
from zlib import crc32

from ari_conf.core import commands as api
from ari_conf.core import effects as do
from ari_conf.core import elements as el
from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.core.calls.call import Call
from ari_conf.core.engine import Engine
from ari_conf.core.queued_sound import SoundList
from ari_conf.core.reconciliation import batches
from ari_conf.core.restoration import Restoration
from ari_conf.store.state_codec import decode, encode
from tests.simulation.world import Lane, World

Deed = tuple[
    Literal["arrive", "hang up", "press", "talk", "silent", "finish", "time", "destroy", "command", "call command"], int
]
ROOM = "standup"
COMMANDS: tuple[api.ConferenceCommand, ...] = (
    api.Mute(None, True), api.Mute(None, False), api.Deafen(None, True), api.Deafen(None, False),
    api.Hold(None, True), api.Hold(None, False), api.Hold(None, True, "tune"),
    api.PlayToMembers(None, el.Play("hello")), api.StopPlaying(None, "Play"),
    api.Announce(el.Play("all")), api.StopAnnouncing(), api.Record("r1"),
    api.StopRecording(), api.Kick((1,)), api.HangUpMembers((2,)), api.HangUpAll(), api.Lock(True),
)  # fmt: skip
CALL_COMMANDS: tuple[api.CallCommand, ...] = (
    api.Transfer(aleg_url="http://document.example/101234"), api.Transfer(aleg_url="http://document.example/333"),
    api.Transfer(aleg_url="http://document.example/0"),
    api.PlayToCall(el.Play("hello")), api.PlayToCall(el.Speak("words")), api.PlayToCall(el.Play("endless", loop=0)),
    api.PlayToCall(SoundList((el.Play("hello"), el.Speak("words")), loop=True, length=3)),
    api.StopPlayingToCall("Play"), api.StopPlayingToCall("Speak"),
    api.SendDigitsToCall("5w5"), api.SendDigitsToCall("WWW5"), api.HangUpCall(),
)  # fmt: skip
DIGITS = "1*23#"
UNHEARD = (ev.DigitReceived, ev.TalkingStarted, ev.TalkingFinished)
"""Events that Asterisk reports once and keeps no record of: one that nobody receives never happened."""


class Death(Exception):
    pass


class Silent:
    """No judge: a mortal application is compared with an immortal one."""

    def __getattr__(self, _: str) -> Any:
        return lambda *_: None


@dataclass
class Written:
    """Persisted data, as Redis has it."""

    state: dict[str, bytes] = field(default_factory=dict)
    next_member_id: int = 1
    outbox: list[do.Effect] = field(default_factory=list)
    begun: set[str] = field(default_factory=set)
    """UUIDs of all calls so far."""


class Mortal(World):
    def __init__(self, dies: frozenset[int] = frozenset(), away: int = 0, order: int = 0) -> None:
        super().__init__()
        self._order = Random(order) if order else None
        """Random order of things under way at the same time; None for the order in which they began."""
        self._seed, self._drawn = "", 0
        self.judge = Silent()  # type: ignore[assignment]
        self.dies = dies
        self.away = away
        """Number of deeds of others before the application rises."""
        self.absent = 0
        self.moments = 0
        self.deaths = 0
        self.written = Written()
        self.unheard: set[int] = set()
        """Deeds that were reported to nobody."""
        self.deed = -1
        self.reported: dict[int, ev.Event] = {}
        self.arrived: dict[str, ev.CallArrived] = {}
        self.commanded: list[ev.CommandReceived] = []
        """Commands without a reply: they stay in their queue."""
        self.requests: list[do.FetchDocument | do.FetchSoundDocument] = []
        """Requests to web servers, in the order in which they were made."""
        self.recorded: list[str] = []

    def _new_id(self) -> str:
        # The id derives from the event that led to it, so that two runs have the same ids for the same things.
        self._drawn += 1
        return f"id{crc32(f'{self._seed} {self._drawn}'.encode()):x}"

    # Deeds of others.

    def do(self, at: int, deed: Deed) -> None:
        what, number = deed
        self.deed = at
        if self.absent:
            self._unseen(at, deed)
            return
        if what == "time":
            self._wait(number)
            return
        self._others(at, what, number)
        self._go_on()

    def _unseen(self, at: int, deed: Deed) -> None:
        what, number = deed
        self.now += number if what == "time" else 0
        self._others(at, what, number)
        self.absent -= 1
        if not self.absent:
            self._rise()
            self._go_on()

    def _others(self, at: int, what: str, number: int) -> None:
        match what:
            case "arrive":
                self._call(f"channel{at}", number)
            case "command":
                command = COMMANDS[number % len(COMMANDS)]
                received = ev.CommandReceived(f"command{at}", api.ForConference("A", ROOM, command), self.now + 10**9)
                self.commanded.append(received)
                self._put(Lane("news", "commands"), received)
            case "call command" if self.callers:
                command = CALL_COMMANDS[number // 31 % len(CALL_COMMANDS)]
                addressed = api.ForCall("A", f"call-{self.callers[number % len(self.callers)]}", command)
                received = ev.CommandReceived(f"command{at}", addressed, self.now + 10**9)
                self.commanded.append(received)
                self._put(Lane("news", "commands"), received)
            case "finish" if playing := sorted(self._heard()):
                self.asterisk.finish(playing[number % len(playing)])
            case "destroy" if bridges := sorted(self.asterisk.bridges):
                self.asterisk.destroy(bridges[number % len(bridges)])
            case "hang up" | "press" | "talk" | "silent" if self.callers:
                self._caller_does(what, self.callers[number % len(self.callers)], number)

    def _call(self, channel_id: str, number: int) -> None:
        self.callers.append(channel_id)
        self.asterisk.call(channel_id)
        source = f"http://document.example/{number}"
        arrived = ev.CallArrived(channel_id, f"call-{channel_id}", "request", "A", "+4930", "100", document=source)
        self.arrived[channel_id] = arrived
        self._put(Lane("news", channel_id), arrived)

    def _heard(self) -> list[str]:
        """Return the playbacks that are heard; one that waits for its turn does not end."""
        where = (*self.asterisk.channels.values(), *self.asterisk.bridges.values())
        return [playback_id for each in where for playback_id in each.playbacks[:1]]

    def _caller_does(self, what: str, channel_id: str, number: int) -> None:
        if channel_id not in self.asterisk.channels:
            return
        if what == "hang up":
            self.asterisk.hang_up(channel_id)
        elif what == "press":
            self.asterisk.press(channel_id, DIGITS[number // 7 % len(DIGITS)])
        else:
            self.asterisk.talk(channel_id, what == "talk")

    def finish_all(self) -> None:
        """Let all callers hang up, and let time pass."""
        if self.absent:
            self.absent = 0
            self._rise()
        self.away = 0
        self._go_on()
        for channel_id in list(self.asterisk.channels):
            if channel_id in self.asterisk.channels:
                self.asterisk.hang_up(channel_id)
            self._go_on()
        self._wait(40_000)

    def _wait(self, ms: int) -> None:
        until = self.now + ms
        while not self.absent and (deadline := self.engine.deadline) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            self._put(Lane("news", "time"), ev.DeadlineReached())
            self._go_on()
        self.now = until
        self._go_on()

    def _put(self, lane: Lane, item: do.Effect | ev.Event) -> None:
        if lane.kind == "news" and isinstance(item, UNHEARD):
            self.unheard.add(self.deed)
        if self.absent and lane.kind == "news":
            return
        super()._put(lane, item)

    # Life.

    def _go_on(self) -> None:
        """Continue until nothing is under way, or the application stays away."""
        while self.lanes:
            try:
                self._happen(self._order.choice(list(self.lanes)) if self._order else next(iter(self.lanes)), "well")
            except Death:
                self._die()
                if self.absent:
                    return

    def _moment(self) -> None:
        self.moments += 1
        if self.moments in self.dies:
            raise Death

    def _die(self) -> None:
        self.deaths += 1
        self.lanes.clear()
        for channel in self.asterisk.channels.values():
            # The application listens itself: see `ari.beep_listener`.
            channel.beeps = channel.examined = False
        if self.away:
            self.absent, self.away = self.away, 0
            return
        self._rise()

    def _rise(self) -> None:
        while True:
            try:
                self._rise_once()
                return
            except Death:
                self.deaths += 1
                self.lanes.clear()

    def _rise_once(self) -> None:
        calls, conferences = [], []
        for text in self.written.state.values():
            thing = decode(text, {})
            if isinstance(thing, Call):
                calls.append(thing)
            else:
                conferences.append(thing)
        self.engine = Engine(self._new_id, "https://conference.example")
        restoration = Restoration(self.engine)
        restoration.add(calls, conferences, self.written.next_member_id)
        assert restoration.finish(self.now) == [], "the persisted state is consistent"
        known = {call.channel_id for call in calls}
        before = dict(batches.expectations_by_owner(self.engine))
        there = self._looks()
        for found in batches.plan_in_batches(
            self.engine, before, there, why="takeover", ours=lambda id: id.startswith("id"), conferences=1
        ):
            at_once, later = batches.split_deferrable(self.engine, found.repeat)
            self._step(self.engine.replay(at_once, self.now))
            for event in found.missed_events:
                self.receive(event)
            self._step([effect for effect in later if batches.is_still_needed(self.engine, effect)])
        for channel_id in there.channels:
            if channel_id not in known and ids.is_placed(channel_id):
                # The server finds such a channel a little later, and hangs it up.
                self.receive(ev.ChannelCreated(channel_id))
            elif channel_id not in known:
                self.receive(self.arrived[channel_id])
        if (deadline := self.engine.deadline) is not None and deadline <= self.now:
            self.receive(ev.DeadlineReached())
        for received in list(self.commanded):
            self._put(Lane("news", "commands"), received)

    # A step.

    def receive(self, event: ev.Event) -> None:
        self._moment()
        self._seed, self._drawn = f"{self.now} {event}", 0
        self._step(self.engine.handle_event(event, self.now), event)

    def _step(self, effects: list[do.Effect], event: ev.Event | None = None) -> None:
        self._moment()
        self._write(effects)
        if isinstance(event, UNHEARD):
            self.unheard.discard(self.deed)
        for effect in effects:
            self._under_way(effect)
        self._moment()

    def _write(self, effects: list[do.Effect]) -> None:
        self.written.next_member_id = self.engine.registry.next_member_id
        self.written.begun |= self.engine.calls.keys()
        for key, thing in self.engine.take_changes().items():
            if thing is None:
                self.written.state.pop(key, None)
            else:
                self.written.state[key] = encode(thing)
        for effect in effects:
            match effect:
                case (
                    do.PostCallback()
                    | do.StoreRecording()
                    | do.ReportProblem()
                    | do.AddAttendanceNote()
                    | do.AddSpeechNote()
                    | do.ArchiveCall()
                    | do.ArchiveMember()
                    | do.ArchiveTalks()
                    | do.ArchiveConference()
                ):
                    self.written.outbox.append(effect)
                case do.CommandReply(command_id):
                    self.written.outbox.append(effect)
                    self.commanded = [c for c in self.commanded if c.command_id != command_id]
                case do.ReleaseName():
                    self._release(effect)

    def _obey(self, effect: do.Effect, chance: Any) -> None:
        self._moment()
        if isinstance(effect, do.StartRecording):
            self.recorded.append(effect.recording_id)
        if isinstance(effect, do.PlayMedia):
            # A sound whose beginning and end were reported to nobody is heard twice; Asterisk allows it.
            self.asterisk.forget(effect.playback_id)
        super()._obey(effect, chance)

    def _reply(self, effect: do.Effect, chance: Any) -> None:
        self._moment()
        if isinstance(effect, do.FetchDocument | do.FetchSoundDocument):
            self.requests.append(effect)
        super()._reply(effect, chance)


class Cut(Protocol):
    def __call__(self, seed: int, dies: frozenset[int], away: int = 0) -> Mortal:
        """Play the course of this seed, with these moments of death, and judge it."""


def cut_everywhere(cut: Cut, seed: int, every: int) -> None:
    """Cut a course at every so many moments, and sometimes again while the application rises or a little later."""
    length, dice = cut(seed, frozenset()).moments, Random(seed)
    for moment in range(1 + dice.randrange(every), length + 1, every):
        again = dice.choice(((), (1,), (2,), (1, 2, 3), (7,)))
        dies = frozenset({moment, *(moment + more for more in again)})
        try:
            cut(seed, dies, away=dice.choice((0, 0, 1, 3)))
        except BaseException as error:
            error.add_note(f"seed {seed}, cut at {sorted(dies)}")
            raise
