"""Commands on calls at any moment, whatever happens or fails: what the API plays is heard, no element is stuck behind
it, no digit is sent twice, and a transferred call goes where it was sent."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from ari_conf.core import commands as do
from ari_conf.core import effects
from ari_conf.core import elements as el
from ari_conf.core import events as ev
from ari_conf.core.calls.call import Call
from ari_conf.core.calls.gather import Gather
from ari_conf.core.calls.live_commands import TRANSFERABLE
from ari_conf.core.calls.record_element import RecordRun
from ari_conf.core.playback.player import PlayerState
from ari_conf.core.queued_sound import SoundList
from tests.core.copies import copied
from tests.simulation import documents
from tests.simulation.test_commands import Commanded, Lenient
from tests.simulation.test_simulation import LONG, ROUGH, SMOOTH, play

SEEDS, STEPS = (1500, 500) if LONG else (40, 250)
ELSEWHERE = "http://document.example/{}"
SOUNDS = (
    el.Play("hello"), el.Speak("words"), el.Play("broken"), el.Play("endless", loop=0),
    SoundList((el.Play("hello"), el.Speak("words")), loop=True, length=2), SoundList((el.Play("hello"),), length=3),
)  # fmt: skip


class CallJudge(Lenient):
    """Judge of what the commands on calls promise, besides what holds for all calls."""

    def __init__(self, *given: object) -> None:
        super().__init__(*given)  # type: ignore[arg-type]
        self.digits: Counter[str] = Counter()
        """Fives that the API has promised to send, by channel."""
        self.sent: Counter[str] = Counter()
        self.transferred: dict[str, str] = {}
        """Call -> URL of its latest transfer, until its document is requested."""
        self.cut: set[str] = set()
        """Channels whose digits were broken off by a transfer."""

    def after(self, event: ev.Event, effects_: list[effects.Effect], now: int) -> None:
        super().after(event, effects_, now)
        for effect in effects_:
            if isinstance(effect, effects.SendDigits):
                self.sent[effect.channel_id] += effect.digits.count("5")
            if isinstance(effect, effects.FetchDocument):
                params = dict(effect.params)
                # The fallback URL, which is a document without elements, is asked with the same event.
                if params["Event"] == "Transfer" and not effect.source.endswith("/0"):
                    url = self.transferred.pop(params["CallUUID"], None)
                    assert effect.source == url, "it goes where the latest transfer sent it"
        for call in self.engine.calls.values():
            if call.call_uuid in self.transferred and not call.is_ending:
                assert call.transfer is not None and call.in_conference, "a transfer waits for the conference alone"

    def settled(self) -> None:
        super().settled()
        for call in self.engine.calls.values():
            channel = self.asterisk.channels.get(call.channel_id)
            if channel is None or call.is_ending or call.channel_id in self.tainted:
                continue
            assert call.call_uuid not in self.transferred, "a transferred call is where it was sent"
            waiting = sum(run.count("5") for _, run in call.live.digits) if call.live is not None else 0
            promised, sent = self.digits[call.channel_id], self.sent[call.channel_id]
            assert sent + waiting <= promised, "no digit is sent twice"
            assert call.channel_id in self.cut or sent + waiting == promised, "no digit is lost"
            if not call.in_conference:
                self._is_heard(call, channel.playbacks)

    def _is_heard(self, call: Call, playbacks: list[str]) -> None:
        """Check that what should be heard is what Asterisk plays."""
        running = call.running.player if isinstance(call.running, Gather) else call.player
        of_api = call.live.playback.player if call.live is not None else None
        players = [p for p in (running, of_api) if p is not None]
        playing = {p.playback_id for p in players if p.state is PlayerState.PLAYING}
        # Asterisk plays the beep of Record and a sound of the API one after the other.
        at_most = 2 if isinstance(call.running, RecordRun) else 1
        assert set(playbacks) == playing and len(playing) <= at_most, "one sound at a time, and it is known"
        if of_api is None and running is not None:
            assert running.state is not PlayerState.HELD, "an element waits for no sound"
        if of_api is not None and of_api.state is PlayerState.PLAYING:
            assert of_api.playback_id in playbacks, "the API's sound is heard, not the element's"


class CallsCommanded(Commanded):
    def __init__(self) -> None:
        super().__init__()
        self.judge: CallJudge = CallJudge(self.engine, self.asterisk)

    def arrive(self, number: int) -> None:
        super().arrive(number + documents.LIVE)

    def press(self, which: int, digit: str) -> None:
        # Fives are those of the API alone.
        super().press(which, digit.replace("5", "6"))

    def command_call(self, random: Random) -> None:
        live = [c for c in self.engine.calls.values() if not c.is_ending]
        if not live:
            return
        call, command = random.choice(live), self._command(random)
        command_id = f"command{random.randrange(10**12)}"
        addressed = do.ForCall(call.auth_id, call.call_uuid, command)
        if isinstance(command, do.Transfer) and call.state in TRANSFERABLE:
            self.judge.transferred[call.call_uuid] = command.aleg_url
            self.judge.cut.add(call.channel_id)
        if isinstance(command, do.SendDigitsToCall) and call.answered_at is not None:
            self.judge.digits[call.channel_id] += command.digits.count("5")
        self.receive(ev.CommandReceived(command_id, addressed, self.now + 5000))
        (reply,) = [effect for effect in self.judge.effects if isinstance(effect, effects.CommandReply)]
        assert reply.command_id == command_id, "each command gets one reply"
        expected = {503, 204} if call.account is None else {202, 204, 409}
        assert reply.status in expected, "a live call is found"
        if reply.status == 409 and isinstance(command, do.SendDigitsToCall) and call.answered_at is not None:
            self.judge.digits[call.channel_id] -= command.digits.count("5")
        for found in self.engine.calls.values():
            assert copied(found) == found, "a snapshot restores the call"

    def _command(self, random: Random) -> do.CallCommand:
        match random.choices(("transfer", "play", "stop", "digits", "hang up"), (3, 6, 3, 4, 0.3))[0]:
            case "transfer":
                return do.Transfer(aleg_url=ELSEWHERE.format(random.choice((333, 5000, 101_234))))
            case "play":
                return do.PlayToCall(random.choice(SOUNDS))
            case "stop":
                return do.StopPlayingToCall(random.choice(("Play", "Speak")))
            case "digits":
                return do.SendDigitsToCall(random.choice(("5", "5w5", "WW55", "55555555555555")))
        return do.HangUpCall()


def command_courses(seeds: int) -> None:
    for seed in range(seeds):
        try:
            test_commands_on_calls_at_any_moment(ROUGH, seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("kinds", [SMOOTH, ROUGH], ids=["smooth", "rough"])
def test_commands_on_calls_at_any_moment(kinds: tuple[str, ...], seed: int) -> None:
    random, world = Random(f"calls {len(kinds)} {seed}"), CallsCommanded()
    for _ in range(STEPS):
        dice = random.random()
        if dice < 0.12:
            world.command_call(random)
        elif dice < 0.14:
            world.command(random)
        else:
            play(world, (random.choice(kinds), random.randrange(10_000)))
    world.end()
