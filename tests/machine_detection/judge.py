"""Judge: runs the detector over a recording in a simulated time, and compares the verdict with what it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ari_conf.ari.machine_ear import MachineEar
from ari_conf.core import events as ev
from ari_conf.core.calls.machine_detection import MachineDetection, Reason, Verdict
from ari_conf.core.placing import MachineDetectionSettings
from tests.machine_detection.recordings import Recording

Source = Callable[[NDArray[np.int16]], Iterator[tuple[int, list[ev.Event]]]]
FRAME_MS = 20
DEFAULTS = MachineDetectionSettings()


def own_ear(samples: NDArray[np.int16]) -> Iterator[tuple[int, list[ev.Event]]]:
    """Yield (ms, what the server's own listener hears then)."""
    ear = MachineEar("channel")
    for at in range(0, len(samples), 160):
        yield (at // 160 + 1) * FRAME_MS, list(ear.hear(samples[at : at + 160].tobytes()))


def talk_detect(samples: NDArray[np.int16], silence_ms: int = 240) -> Iterator[tuple[int, list[ev.Event]]]:
    """Yield (ms, what Asterisk's TALK_DETECT would report then): talking while a frame's mean amplitude is 256."""
    talking, quiet_ms = False, silence_ms
    for number in range(len(samples) // 160):
        frame = samples[number * 160 : (number + 1) * 160].astype(int)
        heard: list[ev.Event] = [ev.ListeningStarted("channel")] if not number else []
        quiet_ms = 0 if np.mean(np.abs(frame)) >= 256 else quiet_ms + FRAME_MS
        if not talking and not quiet_ms:
            heard.append(ev.PhraseStarted("channel", FRAME_MS))
        if talking and quiet_ms == silence_ms:
            heard.append(ev.PhraseEnded("channel", silence_ms))
        talking = quiet_ms < silence_ms
        yield (number + 1) * FRAME_MS, heard


@dataclass(frozen=True)
class Judged:
    recording: Recording
    verdict: Verdict
    reason: Reason
    at_ms: int
    """Time of the verdict since the answer."""

    @property
    def is_right(self) -> bool:
        """Return True for a machine that was found, and for a person who was not taken for a machine: who is undecided
        is treated as a person."""
        return (self.verdict is Verdict.MACHINE) == (self.recording.answered_by == "machine")


def judge(recording: Recording, source: Source = own_ear, settings: MachineDetectionSettings = DEFAULTS) -> Judged:
    detection = MachineDetection(settings, "channel", "call", 0)
    for at_ms, events in source(recording.samples()):
        for event in events:
            detection.handle_event(event, at_ms)
        if detection.deadline is not None and detection.deadline <= at_ms:
            detection.handle_event(ev.DeadlineReached(), at_ms)
        if detection.verdict is not None and detection.reason is not None:
            return Judged(recording, detection.verdict, detection.reason, at_ms)
    raise AssertionError(f"{recording.name}: no verdict")


def confusion(judged: Iterable[Judged]) -> dict[tuple[str, str], int]:
    """Return {(what answered, verdict): number of recordings}."""
    counts = {(was, verdict.value): 0 for was in ("human", "machine") for verdict in Verdict}
    for one in judged:
        counts[one.recording.answered_by, one.verdict.value] += 1
    return counts
