"""Audio judge: what every caller heard of each of the others, in steps of 5 ms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from demo import audio_analysis
from demo.received_audio import ReceivedAudio
from tests.chaos.seen import Injected, Leg, Span, Stall, due, stood_still

GAP_MS = 100.0
"""The longest pause in a voice that callers do not notice."""
SERVED_MS = 5000.0
"""The time until a new caller is heard, counted from the moment at which the system could serve the call."""
CHANGED_MS = 1000.0
"""The delay between the API's response and the audible effect of a mute."""
EDGE_MS = 80.0
"""The delay between saying and hearing."""
STRANGER_MS = 60.0
WAIT_GAP_MS = 3000.0
"""The maximum pause between a wait sound's end and its next start, in addition to delays by faults."""
STEP_MS = 5.0
WINDOW_MS = 20.0
ABOVE = -45.0
WAIT_HZ = audio_analysis.PITCHES[-1]
BEEP_HZ = 700
VOICES = tuple(hz for hz in audio_analysis.PITCHES[:-1] if abs(hz - BEEP_HZ) > 100)

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Finding:
    at_ms: float
    text: str


@dataclass
class Listened:
    """The figures and the findings."""

    stalls: Sequence[Stall] = ()
    """Stalls of the machine during the run."""
    pair_seconds: float = 0.0
    """Seconds in which one caller had to hear one other, added up over all pairs."""
    member_seconds: float = 0.0
    longest_gap_ms: float = 0.0
    gaps: int = 0
    """The number of gaps longer than GAP_MS that the machine did not cause."""
    own_gaps: int = 0
    """The number of gaps longer than GAP_MS because this machine stalled, or sent a phone's packets late."""
    slowest_ms: float = 0.0
    """The longest time from the answer (or from the moment at which the call could be served) until heard."""
    muted_seconds: float = 0.0
    longest_wait_gap_ms: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    def wrong(self, at_ms: float, text: str) -> None:
        self.findings.append(Finding(at_ms, text))


@dataclass(frozen=True)
class Track:
    """The times at which each pitch sounds in the audio of one phone."""

    start_ms: float
    loud: Mask
    """Array of pitches by steps."""

    @property
    def steps(self) -> int:
        return int(self.loud.shape[1])

    def of(self, hz: int) -> Mask:
        row: Mask = self.loud[audio_analysis.PITCHES.index(hz)]
        return row

    def within(self, spans: Sequence[Span]) -> Mask:
        """Return the steps whose middles are in one of the spans."""
        mask = np.zeros(self.steps, np.bool_)
        for start, end in spans:
            first, last = self.step(start), self.step(end)
            if first < last:
                mask[first:last] = True
        return mask

    def step(self, at_ms: float) -> int:
        """Return the first step whose middle is not before that time."""
        at = np.ceil((np.clip(at_ms - self.start_ms, -1e12, 1e12) - WINDOW_MS / 2) / STEP_MS)
        return int(np.clip(at, 0, self.steps))

    def at(self, step: int) -> float:
        return self.start_ms + step * STEP_MS + WINDOW_MS / 2 - STEP_MS / 2


def track(heard: ReceivedAudio) -> Track:
    piece = 20 * 8000
    parts = [
        audio_analysis.levels(heard.audio[at : at + piece + 120], audio_analysis.PITCHES)
        for at in range(0, len(heard.audio), piece)
    ]
    levels = np.concatenate(parts, axis=1) if parts else np.zeros((len(audio_analysis.PITCHES), 0))
    loud = np.zeros(levels.shape, np.bool_)
    for row, level in enumerate(levels):
        there = level[level > ABOVE]
        if len(there):
            # A tone's edge is where it is 6 dB below its usual level.
            loud[row] = level > max(ABOVE, float(np.percentile(there, 75)) - 6)
    return Track(heard.start_ms, loud)


def runs(mask: Mask) -> Iterator[tuple[int, int]]:
    """Yield (first, last + 1) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def judge(legs: Sequence[Leg], faults: Sequence[Injected], stalls: Sequence[Stall] = ()) -> Listened:
    told = Listened(stalls)
    for ear in legs:
        heard = track(ear.ear.heard())
        told.member_seconds += max(0.0, min(ear.to_ms, _end(heard)) - ear.from_ms) / 1000
        _ends(told, ear, faults)
        others = [leg for leg in legs if leg.caller != ear.caller and leg.conference == ear.conference]
        for voice in others:
            _pair(told, ear, heard, voice, faults)
        _strangers(told, ear, heard, others)
        _waiting(told, ear, heard, faults)
    told.findings.sort(key=lambda finding: finding.at_ms)
    return told


def _pair(told: Listened, ear: Leg, heard: Track, voice: Leg, faults: Sequence[Injected]) -> None:
    """Check that one caller hears the other wherever both are in the conference."""
    start, end = max(ear.from_ms, voice.from_ms), min(ear.to_ms, voice.to_ms)
    if end - start < 1000:
        return
    name = f"{_name(ear)} and {_name(voice)}"
    loud = heard.of(voice.hz)
    first_step = heard.step(start)
    sounding = np.flatnonzero(loud[first_step : heard.step(end)])
    could = _could(voice, due(start, faults), faults)
    if not len(sounding):
        if end > could + _patience(told, could, end):
            told.wrong(start, f"{name} are in one conference, and the first never hears the second")
        return
    first = heard.at(first_step + int(sounding[0]))
    told.slowest_ms = max(told.slowest_ms, first - could)
    if first > could + _patience(told, could, first):
        told.wrong(start, f"{name} are in one conference, and the first hears the second after {first - start:.0f} ms")
    quiet = [(from_ms, due(to_ms, faults) + CHANGED_MS) for from_ms, to_ms in voice.quiet]
    # A phone that hears nothing any more gets no packets: missing audio at the end is silence too.
    expected = heard.within([(first, end)]) & ~heard.within(quiet)
    told.pair_seconds += float(expected.sum()) * STEP_MS / 1000
    missing = list(runs(expected & ~loud))
    for a, b in missing:
        _gap(told, name, heard.at(a), (b - a) * STEP_MS, voice)
    _tail(told, name, heard, expected, end, quiet, voice)
    _muted(told, name, heard, loud, ear, voice, faults)


def _gap(told: Listened, name: str, at_ms: float, ms: float, voice: Leg) -> None:
    own = stood_still(at_ms, ms, [*voice.late, *told.stalls])
    if ms - own > GAP_MS:
        told.gaps += 1
        told.wrong(at_ms, f"{name}: the first does not hear the second for {ms:.0f} ms")
    elif ms > GAP_MS:
        told.own_gaps += 1
        return
    told.longest_gap_ms = max(told.longest_gap_ms, ms)


def _tail(told: Listened, name: str, heard: Track, expected: Mask, end: float, quiet: list[Span], voice: Leg) -> None:
    """Check the end: the phone's recording may have ended before the conference."""
    missing = end - EDGE_MS - _end(heard)
    if missing > 0 and not any(from_ms <= end and to_ms >= _end(heard) for from_ms, to_ms in quiet):
        _gap(told, name, _end(heard), missing, voice)


def _muted(
    told: Listened, name: str, heard: Track, loud: Mask, ear: Leg, voice: Leg, faults: Sequence[Injected]
) -> None:
    spans = [(due(a, faults) + CHANGED_MS, b) for a, b in voice.muted]
    spans = [(max(a, ear.from_ms), min(b, ear.to_ms, voice.to_ms)) for a, b in spans]
    mask = heard.within(spans)
    told.muted_seconds += float(mask.sum()) * STEP_MS / 1000
    for a, b in runs(mask & loud):
        at_ms, ms = heard.at(a), (b - a) * STEP_MS
        # The mute itself may be late by as much as the machine stalled since the API's response.
        if ms > GAP_MS + stood_still(at_ms - CHANGED_MS, ms + CHANGED_MS, told.stalls):
            told.wrong(at_ms, f"{name}: the second is muted, and is heard for {ms:.0f} ms")


def _strangers(told: Listened, ear: Leg, heard: Track, others: Sequence[Leg]) -> None:
    """Check that callers hear neither themselves nor a caller of another conference."""
    known = {leg.hz for leg in others} | {WAIT_HZ}
    for hz in set(VOICES) - known:
        for a, b in runs(heard.of(hz)):
            if (b - a) * STEP_MS > STRANGER_MS:
                who = "their own voice" if hz == ear.hz else f"somebody of another conference ({hz} Hz)"
                told.wrong(heard.at(a), f"{_name(ear)} hears {who} for {(b - a) * STEP_MS:.0f} ms")


def _waiting(told: Listened, ear: Leg, heard: Track, faults: Sequence[Injected]) -> None:
    for start, end in ear.waits:
        spans = heard.within([(due(start, faults), end)])
        for a, b in runs(spans & ~heard.of(WAIT_HZ)):
            at_ms, ms = heard.at(a), (b - a) * STEP_MS
            held = due(at_ms, faults) - at_ms
            told.longest_wait_gap_ms = max(told.longest_wait_gap_ms, ms)
            # A stalled machine fetches the sound, and starts it, later by as much.
            if ms > held + WAIT_GAP_MS + stood_still(at_ms, ms, told.stalls):
                told.wrong(at_ms, f"{_name(ear)} waits, and hears no wait sound for {ms:.0f} ms")


def _ends(told: Listened, leg: Leg, faults: Sequence[Injected]) -> None:
    if leg.must_end_ms is None:
        return
    could = due(leg.must_end_ms, faults)
    if leg.ended_ms > could + _patience(told, could, min(leg.ended_ms, could + 60_000)):
        told.wrong(leg.must_end_ms, f"{_name(leg)}: the conference ended for all, and the caller's call did not")


def _patience(told: Listened, could: float, until: float) -> float:
    """Return the time allowed until heard; during a stall of the machine no caller is served."""
    return SERVED_MS + stood_still(could, max(0.0, until - could), told.stalls)


def _could(voice: Leg, at_ms: float, faults: Sequence[Injected]) -> float:
    """Return the time from which the voice could be heard: a caller who is muted when another enters is heard after
    that."""
    for start, end in sorted(voice.quiet):
        if start <= at_ms + SERVED_MS and end > at_ms:
            at_ms = due(end, faults) + CHANGED_MS
    return at_ms


def _end(heard: Track) -> float:
    return heard.start_ms + (heard.steps - 1) * STEP_MS + WINDOW_MS


def _name(leg: Leg) -> str:
    return f"caller {leg.caller} ({leg.conference})"
