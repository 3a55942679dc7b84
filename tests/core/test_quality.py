"""Quality of lines: the E-model against published values, the figures from counters, and the hysteresis."""

from __future__ import annotations

from math import exp
from typing import Any

import pytest

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.conferences.conference import MAX_REPORTED_LINES
from ari_conf.core.elements import GetDigits
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.core.quality import (
    BASE_DELAY_MS,
    CODECS,
    G711,
    JITTER_BUFFER_MS,
    LineCounters,
    LineFigures,
    LineMeasurement,
    LineQuality,
    figures,
    line_rating,
    measure,
    mos_of,
    rating,
    updated,
)
from ari_conf.store.state_codec import decode, encode
from tests.core.stage import Stage, players, stay, waiting


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.mark.parametrize(
    ("r", "mos"),
    [(90, 4.34), (80, 4.03), (70, 3.60), (60, 3.10), (50, 2.58), (0, 1.0), (-10, 1.0), (3, 1.0)],
)
def test_mos_of_a_rating(r: float, mos: float) -> None:
    """G.107, Annex B, Table B.1."""
    assert mos_of(r) == pytest.approx(mos, abs=0.01)


@pytest.mark.parametrize(
    ("loss", "ie", "bpl", "impairment"),
    [(2, *CODECS["g729"][:2], 19.0), (2, G711.ie, G711.bpl_concealed, 7.0), (0, G711.ie, G711.bpl, 0.0)],
    ids=["G.729A", "G.711 with concealment", "no loss"],
)
def test_impairment_by_loss(loss: float, ie: float, bpl: float, impairment: float) -> None:
    """The published values of Ie,eff at 2 % loss."""
    assert 93.2 - rating(0, loss, ie, bpl) == pytest.approx(impairment, abs=0.05)


def test_delay_below_100_ms_does_no_harm_and_then_ever_more() -> None:
    ratings = [rating(delay, 0) for delay in (0, 100, 101, 150, 200, 300, 400, 600)]
    assert ratings[:2] == [93.2, 93.2] and ratings[2] == pytest.approx(93.2, abs=0.01)
    assert ratings[1:] == sorted(ratings[1:], reverse=True)
    assert ratings[-2] == pytest.approx(69.1, abs=0.1)


def counters(at_s: float, received: int, lost_in: int = 0, sent: int = 0, **more: Any) -> LineCounters:
    return LineCounters(at_s, received, lost_in, more.pop("jitter_in_ms", 1.0), sent, **more)


def test_a_clean_line_scores_more_than_4() -> None:
    reported = {"lost_out": 0, "jitter_out_ms": 2.0, "round_trip_ms": 20.0}
    found = figures([counters(0, 0, sent=0, **reported), counters(10, 500, sent=500, **reported)], "ulaw")
    assert found == LineFigures(4.41, 0.0, 0.0, 1.0, 2.0, 20.0)


def test_packets_from_the_phone_that_are_lost() -> None:
    found = figures([counters(0, 100, 10), counters(10, 575, 35)], "ulaw")
    assert found is not None
    assert (found.loss_in, found.loss_out, found.round_trip_ms) == (5.0, None, None)
    assert 2.0 < found.mos < 2.4


def test_packets_to_the_phone_that_are_lost_do_less_harm_because_the_phone_conceals_them() -> None:
    lossy = [counters(0, 0, sent=0, lost_out=0), counters(10, 500, sent=500, lost_out=25)]
    found = figures(lossy, "ulaw")
    assert found is not None
    assert (found.loss_in, found.loss_out) == (0.0, 5.0)
    assert 3.8 < found.mos < 4.0


def test_reports_that_begin_later_count_from_there() -> None:
    window = [
        counters(0, 0, sent=0),
        counters(10, 500, sent=500, lost_out=300),
        counters(20, 1000, sent=1000, lost_out=310),
    ]
    found = figures(window, "ulaw")
    assert found is not None and found.loss_out == 2.0
    found = figures(window[:2], "ulaw")
    assert found is not None and found.loss_out is None


def test_lost_packets_that_arrive_after_all_are_not_lost() -> None:
    window = [counters(0, 0, 5, sent=0, lost_out=4), counters(10, 500, 2, sent=500, lost_out=-1)]
    found = figures(window, "ulaw")
    assert found is not None and (found.loss_in, found.loss_out) == (0.0, 0.0)


def test_delay_by_jitter_and_round_trip() -> None:
    scores = []
    for jitter, round_trip in ((0.0, 0.0), (5.0, 100.0), (20.0, 100.0), (20.0, 500.0), (40.0, 500.0)):
        window = [counters(at, 50 * at, jitter_in_ms=jitter, round_trip_ms=round_trip) for at in (0, 10)]
        found = figures(window, "ulaw")
        assert found is not None
        scores.append(found.mos)
    assert scores[:2] == [4.41, 4.41], "a jitter buffer compensates a little jitter"
    assert 3.3 > scores[2] > scores[3] > scores[4]


@pytest.mark.parametrize(("jitter_ms", "buffer_ms"), [(0.0, 0.0), (8.0, 16.0), (100.0, JITTER_BUFFER_MS)])
def test_a_jitter_buffer_adds_delay_and_what_is_later_is_lost(jitter_ms: float, buffer_ms: float) -> None:
    late = 50 * exp(-JITTER_BUFFER_MS / jitter_ms) if jitter_ms else 0.0
    as_delay_and_loss = rating(200 + buffer_ms + BASE_DELAY_MS, 2 + 0.98 * late, 11, 19)
    assert line_rating(200, 2, jitter_ms, 11, 19) == pytest.approx(as_delay_and_loss)


def test_gsm_scores_less_than_g711() -> None:
    window = [counters(0, 0), counters(10, 500)]
    scores = {codec: found.mos for codec in ("ulaw", "gsm", "opus") if (found := figures(window, codec))}
    assert scores["opus"] == scores["ulaw"] > scores["gsm"] > 3


def test_a_line_without_packets_is_not_judged() -> None:
    assert figures([counters(0, 0), counters(10, 99)], "ulaw") is None
    assert measure([counters(0, 0), counters(10, 500), counters(20, 520)], "ulaw") is None


def test_a_measurement_has_the_latest_interval_and_the_whole_window() -> None:
    measured = measure([counters(0, 0), counters(10, 500, 0), counters(20, 950, 50)], "ulaw")
    assert measured is not None
    assert (measured.seconds, measured.interval.loss_in, measured.current.loss_in) == (10.0, 10.0, 5.0)


# The quality of a membership.


def measured(mos: float, seconds: float = 10.0, **interval: float) -> LineMeasurement:
    return LineMeasurement(seconds, LineFigures(mos, **interval), LineFigures(mos))


def after(*measurements: LineMeasurement) -> LineQuality:
    quality = None
    for each in measurements:
        quality = updated(quality, each)
    assert quality is not None
    return quality


def test_current_worst_and_average() -> None:
    found = after(
        measured(4.4, loss_in=0.0), measured(3.2, loss_in=3.0, round_trip_ms=100.0), measured(4.1, 40, loss_in=1.5)
    )
    assert (found.current.mos, found.worst.mos, found.seconds) == (4.1, 3.2, 60.0)
    assert found.average.mos == pytest.approx((4.4 + 3.2 + 4 * 4.1) / 6, abs=0.01)
    assert found.average.loss_in == pytest.approx(1.5)
    assert found.average.round_trip_ms == 100.0, "of the measurements that know it"
    assert found.average.loss_out is None


@pytest.mark.parametrize(
    ("scores", "bad"),
    [
        ((3.0,), False),
        ((3.0, 3.0), True),
        ((3.0, 3.2, 3.0), False),
        ((3.0, 3.0, 3.5, 3.5, 3.5), True),
        ((3.0, 3.0, 3.7), True),
        ((3.0, 3.0, 3.7, 3.5, 3.7), True),
        ((3.0, 3.0, 3.7, 3.7), False),
        ((3.0, 3.0, 3.7, 3.7, 3.5, 3.5), False),
    ],
)
def test_two_measurements_make_a_line_bad_or_good_again(scores: tuple[float, ...], bad: bool) -> None:
    assert after(*map(measured, scores)).bad is bad


# In a conference.


def tell(stage: Stage, name: str, *scores: float) -> list[do.Effect]:
    return stage.tell(*(ev.LineMeasured(name, measured(score, loss_in=4.0)) for score in scores))


def problems(stage: Stage) -> list[do.ReportProblem]:
    return [effect for effect in stage.all(do.ReportProblem) if effect.kind is ProblemKind.LINE_BAD]


def test_a_bad_line_is_a_problem_once(stage: Stage) -> None:
    players(stage, "ann", "bob")
    assert tell(stage, "ann", 2.0) == []
    (problem,) = tell(stage, "ann", 2.0)
    assert isinstance(problem, do.ReportProblem) and problem.call_uuid == "call-ann"
    assert problem.text == "the line of member 1 in conference 'standup' is bad: MOS 2.0"
    assert tell(stage, "ann", 2.0, 4.0, 4.0, 2.0, 2.0) == []
    conference = stage.conference()
    assert conference is not None
    quality = conference.members[1].quality
    assert quality is not None and quality.bad and quality.seconds == 70
    assert conference.members[2].quality is None


def test_a_problem_names_what_is_known_of_the_line() -> None:
    assert LineFigures(2.26, 4.9, 0.0, 33.0, None, 120.0).text == (
        "MOS 2.3, 4.9 % of their packets are lost, 0 % of the packets to them are lost, jitter 33 ms, round trip 120 ms"
    )


def test_where_all_lines_are_bad_a_few_are_reported(stage: Stage) -> None:
    names = [f"m{number}" for number in range(MAX_REPORTED_LINES + 3)]
    players(stage, *names)
    for name in names:
        tell(stage, name, 2.0, 2.0)
    assert len(problems(stage)) == MAX_REPORTED_LINES
    stage.hang_up(names[0])
    for name in names[1:]:
        tell(stage, name, 2.0)
    assert len(problems(stage)) == MAX_REPORTED_LINES + 1, "another one, once a reported member has left"


def test_a_line_is_measured_while_its_member_waits_and_not_outside_of_conferences(stage: Stage) -> None:
    stage.call("ann", waiting())
    stage.call("bob", GetDigits(timeout=60))
    tell(stage, "ann", 4.0)
    tell(stage, "bob", 2.0, 2.0)
    tell(stage, "nobody", 2.0, 2.0)
    stage.engine.take_changes()
    tell(stage, "ann", 4.0)
    tell(stage, "bob", 2.0)
    conference = stage.conference()
    assert conference is not None and problems(stage) == []
    assert conference.members[1].quality is not None
    assert stage.engine.take_changes() == {conference.conference_id: conference}


def test_a_leaving_member_is_not_measured(stage: Stage) -> None:
    stage.held.add(do.RemoveChannel)
    players(stage, "bob")
    stage.call("ann", stay(hangup_on_star=True))
    tell(stage, "ann", 4.0)
    stage.press("ann", "*")
    tell(stage, "ann", 2.0, 2.0)
    assert problems(stage) == []


def test_the_quality_survives_in_the_state(stage: Stage) -> None:
    players(stage, "ann")
    tell(stage, "ann", 4.0, 2.0, 2.0)
    conference = stage.conference()
    assert conference is not None
    again = decode(encode(conference), {})
    assert again == conference
    assert conference.members[1].quality is not None
