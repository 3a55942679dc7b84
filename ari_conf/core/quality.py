"""Quality of a member's line, the path of RTP between their phone and Asterisk, from the counters of both ends.

The mean opinion score (MOS, from 1 to 4.5) is estimated by the E-model of ITU-T G.107 (06/2015), simplified:

    R = 93.2 - Idd - Ie,eff
    Idd    = 0 up to Ta = 100 ms, then 25 ((1 + X^6)^(1/6) - 3 (1 + (X/3)^6)^(1/6) + 2), X = log2(Ta / 100 ms)
    Ie,eff = Ie + (95 - Ie) Ppl / (Ppl + Bpl)
    MOS    = 1 + 0.035 R + 7e-6 R (R - 60) (100 - R)

93.2 is R with the default values of G.107, without delay and loss. Idd is the impairment by delay (7.4) without echo:
phones cancel it. Ie,eff is the impairment by the codec (Ie) and by randomly lost packets (Ppl, in percent; 7.5), where
Bpl says how well the codec conceals them: both from G.113 (11/2007), Appendix I. MOS is from Annex B.

Jitter is judged as by a jitter buffer that adapts, up to JITTER_BUFFER_MS: it adds a delay of twice the jitter J, and
later packets are lost for the listener, too: exp(-JITTER_BUFFER_MS / J) / 2 of all, if their delay varies around its
mean with a Laplace distribution. Ta, the delay one way, is half of the round trip, the jitter buffer's, and
BASE_DELAY_MS.

A line has two directions, and its MOS is that of the worse one. What the phone sends is mixed without concealment of
lost packets, so that a loss is heard by all others; what it receives, it conceals itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log2, pow
from typing import NamedTuple

from ari_conf.core.frozen import Frozen

BAD_MOS, GOOD_MOS = 3.1, 3.6
"""Below BAD_MOS (R = 60), nearly all users are dissatisfied; from GOOD_MOS (R = 70) on, only some (G.107, Annex B). A
line becomes bad below the first, and stays so until it reaches the second."""
DECIDING = 2
"""Consecutive measurements that make a line bad, or good again."""
MIN_PACKETS = 100
"""Minimum packets (2 s of audio) of a direction between two measurements: with fewer, it is not judged."""
R_MAX, I_MAX = 93.2, 95.0
BASE_DELAY_MS = 40.0
"""One packet of the phone, and one interval of Asterisk's mixing."""
JITTER_BUFFER_MS = 60.0
"""Jitter that an ordinary phone compensates."""


class Codec(NamedTuple):
    ie: float
    """Impairment without loss."""
    bpl: float
    """Robustness against loss, without concealment."""
    bpl_concealed: float


G711 = Codec(0.0, 4.3, 25.1)
CODECS = {
    # G.113 has no values of GSM's robustness.
    "gsm": Codec(20.0, 4.3, 25.1),
    "g729": Codec(11.0, 19.0, 19.0),
}
"""Codecs by Asterisk's name. All others are judged like G.711, also wideband ones: the scale has no better value."""


class LineFigures(Frozen):
    """Figures of a line over some time. None: unknown, because too few packets, or no reports of the phone, arrived."""

    mos: float
    """Estimated mean opinion score of the worse direction: from 1 (bad) to 4.4."""
    loss_in: float | None = None
    """Percent of the packets from the phone that did not arrive."""
    loss_out: float | None = None
    """Percent of the packets to the phone that did not arrive."""
    jitter_in_ms: float | None = None
    """Interarrival jitter (RFC 3550, 6.4.1) of the packets from the phone."""
    jitter_out_ms: float | None = None
    round_trip_ms: float | None = None

    @property
    def text(self) -> str:
        """Return the known figures as a text."""
        named = (
            (self.loss_in, "{:g} % of their packets are lost"),
            (self.loss_out, "{:g} % of the packets to them are lost"),
            (self.jitter_in_ms, "jitter {:g} ms"),
            (self.jitter_out_ms, "jitter to them {:g} ms"),
            (self.round_trip_ms, "round trip {:g} ms"),
        )
        return ", ".join([f"MOS {self.mos:.1f}", *(text.format(value) for value, text in named if value is not None)])


class LineMeasurement(Frozen):
    """One measurement of a line."""

    seconds: float
    """Seconds since the measurement before."""
    interval: LineFigures
    """Figures of these seconds."""
    current: LineFigures
    """Figures of the last half minute."""


class LineQuality(Frozen):
    """Quality of a member's line in this membership. The history of the membership gets its last value."""

    current: LineFigures
    worst: LineFigures
    """The current figures at the lowest MOS so far."""
    average: LineFigures
    """Averages over the measured time."""
    seconds: float
    """The measured time."""
    bad: bool = False
    reported: bool = False
    """True if the account has a problem about this line."""
    contradictions: int = 0
    """Number of consecutive measurements that contradict `bad`."""


class LineCounters(NamedTuple):
    """Counters of a line, from the beginning of its streams to `at_s`. None: the phone has not reported."""

    at_s: float
    received: int
    """Packets that arrived from the phone."""
    lost_in: int
    """Packets from the phone that did not arrive."""
    jitter_in_ms: float
    sent: int
    """Packets sent to the phone."""
    lost_out: int | None = None
    """Packets to the phone that did not arrive, as it last reported."""
    jitter_out_ms: float | None = None
    round_trip_ms: float | None = None


def measure(counters: Sequence[LineCounters], codec: str) -> LineMeasurement | None:
    """Return the measurement that ends with the last of `counters`; None if too few packets came in either direction.

    `counters`: those of the last half minute, the oldest first; at least two."""
    interval = figures(counters[-2:], codec)
    current = figures(counters, codec)
    if interval is None or current is None:
        return None
    return LineMeasurement(round(counters[-1].at_s - counters[-2].at_s, 1), interval, current)


def figures(counters: Sequence[LineCounters], codec: str) -> LineFigures | None:
    """Return the figures of the time between the first and the last of `counters`."""
    later, (inbound, outbound) = counters[1:], (_loss_in(counters), _loss_out(counters))
    jitter_in = _mean([one.jitter_in_ms for one in later]) if inbound is not None else None
    jitter_out = _mean([one.jitter_out_ms for one in later]) if outbound is not None else None
    round_trip = _mean([one.round_trip_ms for one in later])
    of_codec, delay_ms = CODECS.get(codec, G711), (round_trip or 0.0) / 2
    ratings: list[float] = []
    if inbound is not None:
        ratings.append(line_rating(delay_ms, inbound, jitter_in or 0.0, of_codec.ie, of_codec.bpl))
    if outbound is not None:
        ratings.append(line_rating(delay_ms, outbound, jitter_out or 0.0, of_codec.ie, of_codec.bpl_concealed))
    if not ratings:
        return None
    return LineFigures(
        round(mos_of(min(ratings)), 2),
        _rounded(inbound),
        _rounded(outbound),
        _rounded(jitter_in),
        _rounded(jitter_out),
        _rounded(round_trip),
    )


def _loss_in(counters: Sequence[LineCounters]) -> float | None:
    first, last = counters[0], counters[-1]
    lost = max(0, last.lost_in - first.lost_in)
    return _percent(lost, last.received - first.received + lost)


def _loss_out(counters: Sequence[LineCounters]) -> float | None:
    reported = [one for one in counters if one.lost_out is not None]
    if len(reported) < 2:
        return None
    first, last = reported[0], reported[-1]
    return _percent(max(0, (last.lost_out or 0) - (first.lost_out or 0)), last.sent - first.sent)


def line_rating(path_ms: float, loss: float, jitter_ms: float, ie: float, bpl: float) -> float:
    """Return R of a direction with this delay of the network, percentage of lost packets, and jitter."""
    late = exp(-JITTER_BUFFER_MS / jitter_ms) / 2 if jitter_ms > 0 else 0.0
    delay_ms = path_ms + min(2 * jitter_ms, JITTER_BUFFER_MS) + BASE_DELAY_MS
    return rating(delay_ms, loss + (100 - loss) * late, ie, bpl)


def rating(delay_ms: float, loss: float, ie: float = G711.ie, bpl: float = G711.bpl) -> float:
    """Return R for this delay and loss (percent); `ie` and `bpl` are the codec's."""
    return R_MAX - _delay_impairment(delay_ms) - (ie + (I_MAX - ie) * loss / (loss + bpl))


def mos_of(r: float) -> float:
    return 1.0 if r <= 0 else max(1.0, 1 + 0.035 * r + 7e-6 * r * (r - 60) * (100 - r))


def _delay_impairment(delay_ms: float) -> float:
    if delay_ms <= 100:
        return 0.0
    x = log2(delay_ms / 100)
    return 25 * (pow(1 + x**6, 1 / 6) - 3 * pow(1 + (x / 3) ** 6, 1 / 6) + 2)


def updated(quality: LineQuality | None, measured: LineMeasurement) -> LineQuality:
    """Return the quality after one more measurement; `quality` is None at the first one."""
    current = measured.current
    if quality is None:
        return LineQuality(
            current, current, measured.interval, measured.seconds, contradictions=int(current.mos < BAD_MOS)
        )
    seconds = quality.seconds + measured.seconds
    contradicts = current.mos >= GOOD_MOS if quality.bad else current.mos < BAD_MOS
    contradictions = quality.contradictions + 1 if contradicts else 0
    changes = contradictions >= DECIDING
    return LineQuality(
        current,
        min(quality.worst, current, key=lambda each: each.mos),
        _average(quality.average, measured.interval, measured.seconds / seconds if seconds else 1.0),
        round(seconds, 1),
        quality.bad is not changes,
        quality.reported,
        0 if changes else contradictions,
    )


def _average(before: LineFigures, latest: LineFigures, share: float) -> LineFigures:
    """Return the average in which `latest` has this share."""

    def of(one: float | None, other: float | None) -> float | None:
        if one is None or other is None:
            return one if other is None else other
        return round(one + (other - one) * share, 3)

    return LineFigures(
        round(before.mos + (latest.mos - before.mos) * share, 3),
        of(before.loss_in, latest.loss_in),
        of(before.loss_out, latest.loss_out),
        of(before.jitter_in_ms, latest.jitter_in_ms),
        of(before.jitter_out_ms, latest.jitter_out_ms),
        of(before.round_trip_ms, latest.round_trip_ms),
    )


def _percent(part: int, whole: int) -> float | None:
    if whole < MIN_PACKETS:
        return None
    return min(100.0, 100 * part / whole)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
