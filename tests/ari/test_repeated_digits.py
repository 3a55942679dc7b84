"""Tests of digits that Asterisk reports twice: the remaining digits are the typed ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from ari_conf.ari import repeated_digits
from ari_conf.ari.repeated_digits import RepeatedDigitFilter

TOLD = Path(__file__).with_name("keys_told.txt").read_text().splitlines()[1:]
BEGAN = datetime(2026, 11, 30, 2, 0, tzinfo=UTC)


def report(digit: str, at_ms: float, duration_ms: int = 100, channel_id: str = "ann") -> dict[str, Any]:
    at = (BEGAN + timedelta(milliseconds=at_ms)).isoformat(timespec="milliseconds")
    said = {"digit": digit, "duration_ms": duration_ms, "timestamp": at}
    return {"type": "ChannelDtmfReceived", "channel": {"id": channel_id, "name": "PJSIP/1"}, **said}


def left(*messages: dict[str, Any], of: RepeatedDigitFilter | None = None) -> str:
    known = of or RepeatedDigitFilter()
    return "".join(message["digit"] for message in messages if not known.is_repeated(message))


@pytest.mark.parametrize("line", TOLD)
def test_recorded_reports_of_asterisk(line: str) -> None:
    typed, *events = line.split(" ")
    messages = []
    for event in events:
        key, _, at = event.partition("@")
        digit, _, duration = key.partition("/")
        messages.append(report(digit, float(at), int(duration)))
    assert left(*messages) == typed


def test_most_recorded_keys_were_reported_twice() -> None:
    doubled = [line for line in TOLD if len(line.split(" ")) - 1 > len(line.split(" ")[0])]
    assert len(doubled) > len(TOLD) / 2


def test_the_same_key_again_and_again() -> None:
    assert left(*(report("5", 160 * n) for n in range(5))) == "55555"


def test_a_key_that_is_put_aside_is_reported_again_and_then_really_pressed_again() -> None:
    # The second 5 comes too soon after the first, the third at the moment at which Asterisk resumed the second.
    assert left(report("5", 0), report("5", 40), report("5", 50), report("5", 51), report("5", 195)) == "555"


def test_a_key_that_nobody_can_have_put_aside_is_not_reported_again() -> None:
    assert left(report("5", 0), report("5", 300), report("5", 360)) == "555"


def test_a_repetition_is_not_awaited_indefinitely() -> None:
    # Asterisk defers no digit during a playback.
    assert left(report("5", 0), report("5", 40), report("5", 1500)) == "555"


def test_long_presses_one_after_the_other() -> None:
    assert left(report("7", 0, 3000), report("7", 3100, 3000)) == "77"


def test_a_phone_that_tells_its_keys_by_rfc_4733_and_by_info() -> None:
    assert (
        left(
            report("5", 0, 160),
            report("5", 12, 250),
            report("5", 45, 250),
            report("6", 600, 160),
            report("6", 605, 250),
        )
        == "56"
    )


@pytest.mark.parametrize("duration", [160, 250])
@pytest.mark.parametrize("later", [0, 12, 40, 75])
def test_also_if_both_say_that_it_was_as_long(duration: int, later: int) -> None:
    def pressed(digit: str, at: int) -> list[dict[str, Any]]:
        # The second report is deferred, and repeated once.
        times = (at, at + later, at + 45 + duration)
        return [report(digit, each, duration) for each in times]

    assert left(*pressed("1", 0), *pressed("1", 700), *pressed("2", 1400)) == "112"


def test_callers_do_not_disturb_each_other() -> None:
    ann = report("5", 0), report("5", 40), report("5", 50)
    bob = report("5", 20, channel_id="bob"), report("5", 200, channel_id="bob")
    assert left(ann[0], bob[0], ann[1], ann[2], bob[1]) == "5555"


def test_a_channel_that_has_ended_is_forgotten() -> None:
    known = RepeatedDigitFilter()
    known.is_repeated(report("1", 0))
    known.is_repeated({"type": "StasisEnd", "channel": {"id": "ann"}})
    assert left(report("1", 20), of=known) == "1"
    assert not known.is_repeated({"type": "ChannelDestroyed", "channel": {"id": "ann"}})


def test_many_channels_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated_digits, "MAX_CHANNELS", 3)
    known = RepeatedDigitFilter()
    for n in range(10):
        known.is_repeated(report("1", n, channel_id=f"caller {n}"))
    assert len(known._channels) == 3


@pytest.mark.parametrize(
    "message",
    [
        {"type": "ChannelDtmfReceived", "channel": {"id": "ann"}, "digit": "1", "duration_ms": 100},
        {"type": "ChannelDtmfReceived", "channel": {"id": "ann"}, "digit": "1", "timestamp": "2026-11-30T02:00:00Z"},
        {**report("1", 0), "timestamp": "yesterday"},
        {**report("1", 0), "duration_ms": "long"},
    ],
)
def test_without_a_time_it_is_a_key(message: dict[str, Any]) -> None:
    known = RepeatedDigitFilter()
    assert not known.is_repeated(message)
    assert not known.is_repeated(message)


def test_a_clock_that_is_set_back_loses_no_key() -> None:
    assert left(report("1", 10_000), report("1", 0), report("1", 200)) == "111"


@given(some.lists(some.tuples(some.sampled_from("12"), some.integers(200, 900), some.integers(20, 100))))
def test_typed_slowly_all_is_left(typed: list[tuple[str, int, int]]) -> None:
    at, messages = 0, []
    for digit, pause, duration in typed:
        at += pause + duration
        messages.append(report(digit, at, duration))
    assert left(*messages) == "".join(digit for digit, _, _ in typed)
