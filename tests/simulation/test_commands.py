"""API commands at any moment, whatever happens or fails: no member is stuck, and all hear what was commanded."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from ari_conf.core import commands as do
from ari_conf.core import effects
from ari_conf.core import events as ev
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.conferences.member import Member
from ari_conf.core.conferences.member_state import MemberState
from ari_conf.core.effects import StartRecording, StoreRecording
from ari_conf.core.elements import Play, Speak
from ari_conf.core.playback.player import PlayerState
from tests.core.copies import copied
from tests.simulation.judge import Judge
from tests.simulation.test_simulation import LONG, ROUGH, SMOOTH, play
from tests.simulation.world import World

SEEDS, STEPS = (1500, 500) if LONG else (60, 250)

KINDS: tuple[Callable[[do.Members, bool, int], do.ConferenceCommand], ...] = (
    lambda who, on, n: do.Mute(who, on),
    lambda who, on, n: do.Deafen(who, on),
    lambda who, on, n: do.Hold(who, on, (None, "tune", "broken")[n % 3]),
    lambda who, on, n: do.Hold(who, on),
    lambda who, on, n: do.PlayToMembers(who, (Play("hello"), Speak("word"), Play("broken"))[n % 3]),
    lambda who, on, n: do.PlayToMembers(who, Play("hello")),
    lambda who, on, n: do.StopPlaying(who, "Play" if on else "Speak"),
    lambda who, on, n: do.Announce(Play("all")) if on else do.StopAnnouncing(),
    lambda who, on, n: do.Lock(on),
    lambda who, on, n: do.Record(f"r{n}", time_limit=5 if n % 2 else None) if on else do.StopRecording(),
    lambda who, on, n: do.Kick(who),
    lambda who, on, n: do.HangUpMembers(who),
    lambda who, on, n: do.HangUpAll(),
)
WEIGHTS = (6, 3, 6, 3, 4, 4, 2, 3, 1, 2, 1, 1, 0.3)


class Lenient(Judge):
    """Judge of the promises that no command changes, and of what the commands promise."""

    def before(self, event: ev.Event, now: int) -> None:
        pass

    def after(self, event: ev.Event, effects: list[effects.Effect], now: int) -> None:
        self.effects = effects
        self.fits()
        self.recordings_of_calls(effects)
        for effect in effects:
            params = dict(getattr(effect, "params", ()))
            if params.get("ConferenceAction") == "exit":
                self.out_is_out(params["CallUUID"].replace("call", "channel"), params["ConferenceUUID"])

    def recordings_of_calls(self, effects: list[effects.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, StartRecording | StoreRecording) and not getattr(effect, "conference_id", ""):
                self.of_call(effect)

    def gone(self, names: dict[tuple[str, str], str]) -> None:
        for conference_id in self.live - set(self.engine.conferences):
            assert conference_id not in names.values(), "ended, and its name is not free"
        self.live = set(self.engine.conferences)

    def settled(self) -> None:
        for conference in self.engine.conferences.values():
            if conference.conference_id in self.tainted or conference.ending:
                continue
            members = [m for m in conference.members.values() if m.channel_id in self.asterisk.channels]
            if not {m.channel_id for m in members} & self.tainted:
                for member in members:
                    self._is_as_commanded(conference, member, members)

    def _is_as_commanded(self, conference: Conference, member: Member, members: list[Member]) -> None:
        channel = self.asterisk.channels[member.channel_id]
        own, mix = self.asterisk.own(member.channel_id), self.asterisk.mix(member.channel_id)
        assert channel.muted == (member.muted or channel.on_hold)
        assert len(channel.playbacks) <= 1, "one sound at a time"
        playing = {
            p.playback_id
            for p in (member.player, member.private_playback.player)
            if p and p.state is PlayerState.PLAYING
        }
        assert set(channel.playbacks) == playing, "what is played is known"
        assert not (member.private_playback.queue and member.private_playback.player is None), "what is queued begins"
        if not conference.started:
            assert (member.state, channel.bridge) == (MemberState.WAITING, None)
            return
        assert member.state is (MemberState.ON_HOLD if member.hold_requested else MemberState.IN_BRIDGE)
        if member.hold_requested:
            assert channel.bridge is None and not channel.deaf
            assert own or member.player or member.private_playback.player, "a held member is not left in silence"
            return
        assert channel.bridge == conference.bridge_id
        assert channel.deaf == member.deaf
        others = {m.channel_id for m in members if m is not member and not m.silenced and not m.hold_requested}
        heard = mix & set(self.asterisk.channels)
        # A private playback is not interrupted because a stream has restarted.
        later = {m.channel_id for m in members if m.stream_restarted and not m.is_silent}
        assert heard | later == (set() if member.deaf else others) | later


class Commanded(World):
    def __init__(self) -> None:
        super().__init__()
        self.judge: Lenient = Lenient(self.engine, self.asterisk)

    def command(self, random: Random) -> None:
        live = [c for c in self.engine.conferences.values() if not c.ending]
        if not live:
            return
        conference = random.choice(live)
        if random.random() < 0.1:
            self.receive(ev.AccountWatched(conference.auth_id, self.now + random.choice((100, 5000, 60_000))))
        ids = list(conference.members)
        some = tuple(random.sample(ids, random.randint(1, min(2, len(ids))))) if ids else (1,)
        (make,) = random.choices(KINDS, WEIGHTS)
        command = make(None if random.random() < 0.2 else some, random.random() < 0.6, random.randrange(10**9))
        command_id = f"command{random.randrange(10**12)}"
        addressed: do.ForConference | do.ForAccount | do.ForCall = do.ForConference(
            conference.auth_id, conference.name, command
        )
        if random.random() < 0.02:
            addressed = do.ForAccount(conference.auth_id, do.HangUpCalls(random.randint(1, 4)))
        elif random.random() < 0.08:
            call = random.choice([*self.engine.calls.values()])
            name = f"r{random.randrange(10**9)}"
            starts = do.RecordCall(name, stereo=random.random() < 0.5, time_limit=random.choice((2, 60)))
            wanted = starts if random.random() < 0.7 else do.StopRecordingCall()
            addressed = do.ForCall(call.auth_id, call.call_uuid, wanted)
        self.receive(ev.CommandReceived(command_id, addressed, self.now + 5000))
        replies = [effect for effect in self.judge.effects if isinstance(effect, effects.CommandReply)]
        assert [reply.command_id for reply in replies] == [command_id], "each command gets one reply"
        for found in self.engine.conferences.values():
            assert copied(found) == found, "a snapshot restores the conference"


def commanded_courses(seeds: int) -> None:
    for seed in range(seeds):
        try:
            test_commands_at_any_moment(ROUGH, seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("kinds", [SMOOTH, ROUGH], ids=["smooth", "rough"])
def test_commands_at_any_moment(kinds: tuple[str, ...], seed: int) -> None:
    random, world = Random(f"{len(kinds)} {seed}"), Commanded()
    for _ in range(STEPS):
        if random.random() < 0.12:
            world.command(random)
        else:
            play(world, (random.choice(kinds), random.randrange(10_000)))
    world.end()
