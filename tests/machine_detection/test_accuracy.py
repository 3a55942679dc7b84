"""Accuracy of answering-machine detection with Plivo's defaults: at least 95 % of 40 recordings, and no person lost."""

from __future__ import annotations

import pytest

from tests.machine_detection.judge import Judged, judge, talk_detect
from tests.machine_detection.recordings import TEST, TUNING, Recording


@pytest.fixture(scope="module")
def judged() -> list[Judged]:
    return [judge(recording) for recording in TEST]


def test_there_are_40_recordings_half_of_them_of_people() -> None:
    assert [sum(one.answered_by == who for one in TEST) for who in ("human", "machine")] == [20, 20]


def test_hardly_a_text_is_among_those_that_the_constants_were_chosen_with() -> None:
    shared = set.intersection(*map(_texts, (TEST, TUNING)))
    assert shared <= {"Hello?", "Yes?", "vm-theperson.wav"}


def _texts(recordings: tuple[Recording, ...]) -> set[str]:
    return {part[1] for one in recordings for part in one.parts if isinstance(part, tuple)}


def test_at_least_95_percent_are_right(judged: list[Judged]) -> None:
    wrong = [f"{one.recording.name}: {one.verdict.value}, {one.reason.value}" for one in judged if not one.is_right]
    assert len(wrong) <= len(judged) * 0.05, wrong


def test_hardly_any_person_is_taken_for_a_machine(judged: list[Judged]) -> None:
    """The worse error of the two: with `machine_detection=hangup` somebody who has said hello is hung up on."""
    people = [one for one in judged if one.recording.answered_by == "human"]
    assert sum(not one.is_right for one in people) <= 1


def test_nobody_waits_longer_than_machine_detection_time(judged: list[Judged]) -> None:
    assert max(one.at_ms for one in judged) <= 5000


def test_asterisk_s_talk_detection_alone_is_not_enough(judged: list[Judged]) -> None:
    """The reason for a listener of the server's own."""
    right = sum(judge(recording, talk_detect).is_right for recording in TEST)
    assert right < sum(one.is_right for one in judged)
