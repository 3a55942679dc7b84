"""Tests of the audio judge, with audio that has defects."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf

import numpy as np
import pytest

from demo.received_audio import ReceivedAudio
from tests.chaos.hearing import VOICES, WAIT_HZ, Listened, judge
from tests.chaos.seen import Injected, Leg, Span

T0 = 1_000_000.0
END = 10_000.0
"""The length of the audio in ms."""
ANN, BOB, CID = VOICES[3], VOICES[4], VOICES[9]


@dataclass
class Sounds:
    """Tones with the spans in which they sound, in ms from T0."""

    tones: dict[int, list[Span]]
    start: float = 0.0
    end: float = END

    def heard(self) -> ReceivedAudio:
        audio = np.random.default_rng(1).normal(0, 20, round((self.end - self.start) * 8))
        at = np.arange(len(audio))
        for hz, spans in self.tones.items():
            for a, b in spans:
                on = (at >= (a - self.start) * 8) & (at < (b - self.start) * 8)
                audio[on] += 3277 * np.sin(2 * np.pi * hz * at[on] / 8000)
        samples = np.round(audio).astype(np.int16)
        return ReceivedAudio(T0 + self.start, samples, np.ones(len(samples), np.bool_), np.zeros(0))


@dataclass
class Talk:
    """Three callers who hear each other all the time, except for a test's changes."""

    legs: list[Leg] = field(default_factory=list)
    faults: list[Injected] = field(default_factory=list)

    def __post_init__(self) -> None:
        for caller, hz in enumerate((ANN, BOB, CID)):
            others = {one: [(0.0, END)] for one in (ANN, BOB, CID) if one != hz}
            self.legs.append(Leg(caller, "standup", hz, T0, Sounds(others), from_ms=T0, to_ms=T0 + END))

    def hears(self, caller: int, hz: int, *spans: Span) -> None:
        ear = self.legs[caller].ear
        assert isinstance(ear, Sounds)
        ear.tones[hz] = list(spans)

    def fault(self, kind: str, start: float, end: float) -> None:
        self.faults.append(Injected(kind, T0 + start, T0 + end))

    def judged(self) -> Listened:
        return judge(self.legs, self.faults)

    def wrong(self) -> list[str]:
        return [finding.text for finding in self.judged().findings]


def test_a_good_run_has_no_fault_and_all_of_it_was_analyzed() -> None:
    told = Talk().judged()
    assert told.findings == []
    assert told.gaps == 0
    assert told.longest_gap_ms < 20
    assert told.pair_seconds == pytest.approx(60, abs=0.5)
    assert told.member_seconds == pytest.approx(30, abs=0.5)


@pytest.mark.parametrize("ms", [110, 150, 400, 3000])
def test_a_gap_is_noticed(ms: float) -> None:
    talk = Talk()
    talk.hears(0, BOB, (0, 4000), (4000 + ms, END))
    told = talk.judged()
    (finding,) = told.findings
    assert finding.text.startswith("caller 0 (standup) and caller 1 (standup): the first does not hear the second for ")
    assert finding.at_ms == pytest.approx(T0 + 4000, abs=10)
    assert told.longest_gap_ms == pytest.approx(ms, abs=10)


@pytest.mark.parametrize("ms", [20, 60, 90])
def test_an_inaudible_pause_is_no_gap(ms: float) -> None:
    talk = Talk()
    talk.hears(0, BOB, (0, 4000), (4000 + ms, END))
    told = talk.judged()
    assert told.findings == []
    assert told.longest_gap_ms == pytest.approx(ms, abs=10)


def test_a_voice_that_does_not_return_is_a_gap() -> None:
    talk = Talk()
    talk.hears(1, CID, (0, 7000))
    assert talk.judged().longest_gap_ms == pytest.approx(3000, abs=30)


def test_a_phone_that_gets_no_packets_any_more_hears_a_gap() -> None:
    talk = Talk()
    talk.legs[0].ear = Sounds({BOB: [(0, END)], CID: [(0, END)]}, end=8000)
    told = talk.judged()
    assert told.gaps == 2
    assert told.longest_gap_ms == pytest.approx(2000, abs=100)


def test_a_gap_in_what_a_phone_sent_late_is_excused() -> None:
    talk = Talk()
    talk.hears(0, BOB, (0, 4000), (4150, END))
    talk.legs[1].late = [(T0 + 4120, 120.0)]
    told = talk.judged()
    assert told.findings == []
    assert (told.gaps, told.own_gaps) == (0, 1)


def test_a_gap_during_a_stall_of_the_machine_is_excused() -> None:
    talk = Talk()
    talk.hears(0, BOB, (0, 4000), (4150, END))
    told = judge(talk.legs, [], [(T0 + 4150, 140.0)])
    assert (told.gaps, told.own_gaps) == (0, 1)
    told = judge(talk.legs, [], [(T0 + 4100, 30.0), (T0 + 4160, 30.0)])
    assert (told.gaps, told.own_gaps) == (0, 1), "together they explain it"
    told = judge(talk.legs, [], [(T0 + 4150, 40.0), (T0 + 4150, 40.0), (T0 + 9000, 300.0)])
    assert (told.gaps, told.own_gaps) == (1, 0)


def test_a_packet_sent_late_at_another_time_excuses_nothing() -> None:
    talk = Talk()
    talk.hears(0, BOB, (0, 4000), (4150, END))
    talk.legs[1].late = [(T0 + 8000, 120.0), (T0 + 4120, 30.0)]
    assert talk.judged().gaps == 1


def test_a_member_who_is_never_heard_is_a_fault() -> None:
    talk = Talk()
    talk.hears(2, ANN)
    (text,) = talk.wrong()
    assert (
        text == "caller 2 (standup) and caller 0 (standup) are in one conference, and the first never hears the second"
    )


def test_a_member_who_is_heard_late_is_a_fault() -> None:
    talk = Talk()
    talk.hears(2, ANN, (6000, END))
    (text,) = talk.wrong()
    assert "the first hears the second after 60" in text
    # It could not be sooner: the server was down until then.
    talk.fault("application killed", -100, 5500)
    assert talk.wrong() == []


def test_a_muted_member_is_heard_by_newcomers_after_the_unmute() -> None:
    talk = Talk()
    talk.hears(2, ANN, (6300, END))
    talk.legs[0].quiet = [(T0 - 500, T0 + 6000)]
    assert talk.wrong() == []
    talk.legs[0].quiet = [(T0 - 500, T0 + 100)]
    (text,) = talk.wrong()
    assert "the first hears the second after 63" in text


def test_a_fault_of_the_application_excuses_no_gap() -> None:
    talk = Talk()
    talk.fault("application killed", 3900, 6000)
    talk.hears(0, BOB, (0, 4000), (5900, END))
    assert talk.judged().gaps == 1


def test_before_a_call_and_after_it_nothing_is_expected() -> None:
    talk = Talk()
    talk.legs[2].answered_ms = talk.legs[2].from_ms = T0 + 3000
    talk.legs[1].to_ms = T0 + 8000
    talk.hears(0, CID, (3100, END))
    talk.hears(1, CID, (3100, END))
    talk.hears(0, BOB, (0, 8000))
    talk.hears(2, BOB, (0, 8000))
    assert talk.wrong() == []


def test_a_muted_member_must_not_be_heard() -> None:
    talk = Talk()
    talk.legs[1].quiet = [(T0 + 3000, T0 + 6000)]
    talk.legs[1].muted = [(T0 + 3100, T0 + 5900)]
    talk.hears(0, BOB, (0, 3200), (6300, END))
    talk.hears(2, BOB, (0, 3200), (6300, END))
    told = talk.judged()
    assert told.findings == []
    assert told.muted_seconds == pytest.approx(2 * 1.8, abs=0.1)
    talk.hears(2, BOB, (0, 3200), (5000, 5200), (6300, END))
    (text,) = talk.wrong()
    assert text.startswith("caller 2 (standup) and caller 1 (standup): the second is muted, and is heard for ")
    assert judge(talk.legs, [], [(T0 + 4900, 300.0)]).findings == [], "the mute was late with the machine"
    (found,) = judge(talk.legs, [], [(T0 + 3800, 300.0)]).findings
    assert found.text == text, "a stall at another time is no excuse"


def test_a_member_who_left_muted_must_be_heard_in_the_next_call() -> None:
    talk = Talk()
    talk.legs[1].quiet = talk.legs[1].muted = [(T0 + 3000, T0 + 8000)]
    talk.legs[1].to_ms = T0 + 5000
    talk.legs.append(replace(talk.legs[1], from_ms=T0 + 6000, to_ms=T0 + END, quiet=[], muted=[]))
    for caller in (0, 2):
        talk.hears(caller, BOB, (0, 3200), (6100, END))
    assert talk.wrong() == []


def test_a_member_who_stays_silent_after_the_unmute_is_a_fault() -> None:
    talk = Talk()
    talk.legs[1].quiet = [(T0 + 3000, T0 + 4000)]
    talk.hears(0, BOB, (0, 3200))
    talk.hears(2, BOB, (0, 3200), (4500, END))
    assert talk.judged().gaps == 1


def test_a_voice_of_another_conference_is_a_fault() -> None:
    talk = Talk()
    talk.hears(0, VOICES[12], (2000, 2200))
    assert [text.partition(" for")[0] for text in talk.wrong()] == [
        f"caller 0 (standup) hears somebody of another conference ({VOICES[12]} Hz)"
    ]


def test_an_echo_of_the_own_voice_is_a_fault() -> None:
    talk = Talk()
    talk.hears(0, ANN, (2000, 2200))
    assert [text.partition(" for")[0] for text in talk.wrong()] == ["caller 0 (standup) hears their own voice"]


def test_the_wait_sound() -> None:
    talk = Talk()
    waits = Leg(4, "doors", ANN, T0, Sounds({WAIT_HZ: [(1000, 4000), (4200, END)]}), waits=[(T0, T0 + END)])
    talk.legs.append(waits)
    told = talk.judged()
    assert told.findings == []
    assert told.longest_wait_gap_ms == pytest.approx(1000, abs=30)
    waits.ear = Sounds({WAIT_HZ: [(1000, 4000), (8000, END)]})
    (text,) = talk.wrong()
    assert text.startswith("caller 4 (doors) waits, and hears no wait sound for 40")
    stalls = [(T0 + 5000, 600.0), (T0 + 7000, 500.0)]
    assert judge(talk.legs, [], stalls).findings == [], "together they explain what is beyond the limit"
    (found,) = judge(talk.legs, [], stalls[:1]).findings
    assert found.text == text, "a stall excuses no more than its own length"
    talk.fault("application killed", 3000, 6500)
    assert talk.wrong() == []


def test_a_conference_that_ends_for_all() -> None:
    talk = Talk()
    for leg in talk.legs[:2]:
        leg.to_ms = leg.must_end_ms = T0 + 8000
    talk.legs[0].ended_ms = T0 + 8300
    talk.legs[1].ended_ms = inf
    talk.legs[2].to_ms = T0 + 8000
    assert talk.wrong() == ["caller 1 (standup): the conference ended for all, and the caller's call did not"]
