"""Tests of the decision whether a person or a machine has answered, with times in ms since the answer."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.calls.machine_detection import MachineDetection, Reason, Verdict
from ari_conf.core.placing import MachineDetectionSettings

T0 = 1_700_000_000_000
REPORTED_MS = 160
"""ms after which the end of a phrase is reported."""


class Detection:
    """Detection whose deadlines are met. All times are ms since the answer."""

    def __init__(self, **settings: Any) -> None:
        self.detection = MachineDetection(MachineDetectionSettings(**settings), "ann", "u-ann", T0)
        self.effects: list[do.Effect] = self.detection.start()

    def until(self, ms: int) -> None:
        """Let the time pass until then."""
        while (at := self.detection.deadline) is not None and at <= T0 + ms:
            self.effects += self.detection.handle_event(ev.DeadlineReached(), at)

    def tell(self, ms: int, *events: ev.Event) -> None:
        self.until(ms)
        for event in events:
            self.effects += self.detection.handle_event(event, T0 + ms)

    def listens(self, ms: int = 20) -> None:
        self.tell(ms, ev.ListeningStarted("ann"))

    def says(self, *phrases: tuple[int, int]) -> None:
        """Let these phrases be heard: (start, end)."""
        for start, end in phrases:
            self.tell(start + 100, ev.PhraseStarted("ann", 100))
            self.tell(end + REPORTED_MS, ev.PhraseEnded("ann", REPORTED_MS))

    @property
    def verdict(self) -> tuple[Verdict | None, Reason | None, int]:
        """Return the verdict, its reason, and its time."""
        self.until(60_000)
        found = self.detection
        assert self.effects[-1] == do.ListenForMachine("ann", False, "u-ann")
        assert found.decided_at is not None and found.deadline is None
        return found.verdict, found.reason, found.decided_at - T0


def test_a_person_says_hello_and_waits() -> None:
    d = Detection()
    assert d.effects == [do.ListenForMachine("ann", True, "u-ann")]
    d.listens()
    d.says((600, 1000))
    assert d.verdict == (Verdict.HUMAN, Reason.SILENCE_AFTER_GREETING, 1000 + 800 + 160)


def test_the_longer_the_greeting_the_longer_the_silence_after_it() -> None:
    d = Detection()
    d.listens()
    d.says((200, 1500), (1800, 2900))
    assert d.verdict == (Verdict.HUMAN, Reason.SILENCE_AFTER_GREETING, 2900 + 1600)


def test_a_phrase_that_is_too_long_is_a_machine_s() -> None:
    d = Detection()
    d.listens()
    d.tell(600, ev.PhraseStarted("ann", 100))
    assert d.verdict == (Verdict.MACHINE, Reason.LONG_PHRASE, 500 + 1500 + 240)


def test_a_phrase_that_ends_in_time_is_not_too_long_though_its_end_is_reported_later() -> None:
    d = Detection()
    d.listens()
    d.says((500, 1990))
    assert d.verdict[0] is Verdict.HUMAN


def test_initial_greeting_says_how_long_a_phrase_may_be() -> None:
    d = Detection(initial_greeting_ms=4000)
    d.listens()
    d.says((500, 3500))
    assert d.verdict == (Verdict.UNDECIDED, Reason.TIME, 5000) or d.verdict[0] is Verdict.MACHINE
    d = Detection(initial_greeting_ms=4000, time_ms=10_000)
    d.listens()
    d.says((500, 3500))
    assert d.verdict == (Verdict.HUMAN, Reason.SILENCE_AFTER_GREETING, 3500 + 1600)


@pytest.mark.parametrize(("most", "verdict"), [(2, Verdict.MACHINE), (3, Verdict.MACHINE), (4, Verdict.HUMAN)])
def test_more_sentences_than_maximum_words_are_a_machine_s(most: int, verdict: Verdict) -> None:
    d = Detection(maximum_words=most, time_ms=10_000)
    d.listens()
    d.says((0, 500), (800, 1300), (1600, 2100), (2400, 3400))
    assert d.verdict[0] is verdict
    if verdict is Verdict.MACHINE:
        assert d.detection.reason is Reason.MANY_SENTENCES
        assert d.verdict[2] == 800 * most + 200 + 240


def test_a_short_pause_does_not_begin_a_sentence() -> None:
    d = Detection(time_ms=10_000)
    d.listens()
    d.says((0, 500), (700, 1200), (1400, 1900), (2100, 2600))
    assert d.verdict[0] is Verdict.HUMAN


def test_more_speech_than_maximum_speech_length_is_a_machine_s() -> None:
    d = Detection(maximum_speech_ms=3000, maximum_words=10, time_ms=10_000)
    d.listens()
    d.says((0, 1200), (1400, 2600))
    d.tell(2900, ev.PhraseStarted("ann", 100))
    assert d.verdict == (Verdict.MACHINE, Reason.LONG_SPEECH, 2800 + 600 + 240)


@pytest.mark.parametrize("silence_ms", [2000, 4500])
def test_silence_from_the_start_is_a_machine_s(silence_ms: int) -> None:
    d = Detection(initial_silence_ms=silence_ms)
    d.listens(100)
    assert d.verdict == (Verdict.MACHINE, Reason.INITIAL_SILENCE, 100 + silence_ms)


def test_a_longer_silence_than_the_detection_lasts_decides_nothing() -> None:
    d = Detection(initial_silence_ms=10_000, time_ms=3000)
    d.listens()
    assert d.verdict == (Verdict.UNDECIDED, Reason.TIME, 3000)


def test_noise_is_neither_speech_nor_a_greeting() -> None:
    d = Detection()
    d.listens()
    d.tell(200, ev.PhraseStarted("ann", 100))
    d.tell(700, ev.PhraseEnded("ann", 400, is_speech=False))
    assert d.verdict == (Verdict.MACHINE, Reason.INITIAL_SILENCE, 4520)


def test_a_beep_is_a_machine_s_at_once() -> None:
    d = Detection()
    d.listens()
    d.says((500, 900))
    d.tell(1500, ev.ToneHeard("ann"))
    assert d.verdict == (Verdict.MACHINE, Reason.BEEP, 1500)


def test_who_has_talked_a_lot_when_the_time_is_over_is_a_machine() -> None:
    d = Detection(time_ms=3500)
    d.listens()
    d.says((100, 1500), (1750, 3000))
    assert d.verdict == (Verdict.MACHINE, Reason.LONG_SPEECH, 3500)


def test_without_any_audio_it_is_undecided() -> None:
    assert Detection().verdict == (Verdict.UNDECIDED, Reason.NOT_HEARD, 5000)


def test_if_listening_fails_it_is_undecided_at_once() -> None:
    d = Detection()
    d.tell(300, ev.ListeningFailed("ann", "no chan_rtp"))
    assert d.verdict == (Verdict.UNDECIDED, Reason.NOT_HEARD, 300)


def test_the_time_is_counted_from_the_answer() -> None:
    d = Detection(time_ms=2000)
    d.listens(1900)
    assert d.verdict == (Verdict.UNDECIDED, Reason.TIME, 2000)


def test_events_after_the_verdict_change_nothing() -> None:
    d = Detection()
    d.listens()
    d.says((600, 1000))
    before = d.verdict
    d.tell(3000, ev.ToneHeard("ann"), ev.ListeningFailed("ann", "x"), ev.DeadlineReached())
    assert d.verdict == before and d.detection.resume() == []


class TestAfterACrash:
    """Another process takes over, and a new listener begins."""

    def taken_over(self, d: Detection) -> Detection:
        """Replace the detection by one that was read from the state."""
        d.detection = msgspec.json.decode(msgspec.json.encode(d.detection), type=MachineDetection)
        d.detection.interrupt()
        assert d.detection.resume() == [do.ListenForMachine("ann", True, "u-ann")]
        return d

    def test_a_greeting_before_it_still_counts(self) -> None:
        d = Detection(time_ms=10_000)
        d.listens()
        d.says((500, 900))
        d = self.taken_over(d)
        d.listens(1600)
        assert d.verdict == (Verdict.HUMAN, Reason.SILENCE_AFTER_GREETING, 1600 + 800 + 160)

    def test_a_phrase_that_goes_on_is_one_phrase(self) -> None:
        d = Detection(time_ms=10_000)
        d.listens()
        d.tell(600, ev.PhraseStarted("ann", 100))
        d = self.taken_over(d)
        d.listens(1200)
        d.tell(1320, ev.PhraseStarted("ann", 100))
        assert d.verdict == (Verdict.MACHINE, Reason.LONG_PHRASE, 500 + 1500 + 240)

    def test_a_phrase_that_ended_meanwhile_is_a_greeting(self) -> None:
        d = Detection(time_ms=10_000)
        d.listens()
        d.tell(600, ev.PhraseStarted("ann", 100))
        d = self.taken_over(d)
        d.listens(1500)
        assert d.verdict[:2] == (Verdict.HUMAN, Reason.SILENCE_AFTER_GREETING)

    def test_silence_is_no_evidence_since_a_greeting_may_have_been_missed(self) -> None:
        d = Detection(initial_silence_ms=2000)
        d.listens()
        d = self.taken_over(d)
        d.listens(2000)
        assert d.verdict == (Verdict.UNDECIDED, Reason.TIME, 5000)

    def test_a_beep_still_decides(self) -> None:
        d = Detection()
        d.listens()
        d = self.taken_over(d)
        d.listens(2000)
        d.tell(3000, ev.ToneHeard("ann"))
        assert d.verdict == (Verdict.MACHINE, Reason.BEEP, 3000)

    @pytest.mark.parametrize("before", [[], [ev.PhraseStarted("ann", 100)]])
    def test_its_time_may_have_passed_meanwhile(self, before: list[ev.Event]) -> None:
        d = Detection()
        d.listens()
        d.tell(1000, *before)
        d = self.taken_over(d)
        d.detection.handle_event(ev.DeadlineReached(), T0 + 9000)
        assert (d.detection.verdict, d.detection.decided_at) == (Verdict.UNDECIDED, T0 + 9000)
