from __future__ import annotations

from dataclasses import replace
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_conf.http_client.retry_policy import (
    RETRIED_AS,
    RETRY_CONDITIONS,
    AttemptOutcome,
    RetryPolicy,
    next_delay_ms,
    parse,
    retry_after_ms,
)

FAILED = AttemptOutcome(0, 10, failure="connect", reason="refused")


def status(number: int, retry_after: int | None = None) -> AttemptOutcome:
    return AttemptOutcome(0, 10, number, retry_after_ms=retry_after)


def test_without_a_fragment_the_defaults_of_the_specification_hold() -> None:
    assert parse("https://example.com/cb?a=1") == (
        "https://example.com/cb?a=1",
        RetryPolicy(2000, 40_000, 55_000, 1, frozenset({"ct", "rt"})),
        (),
    )


def test_the_fragment_is_taken_off_and_read() -> None:
    url, policy, warnings = parse("https://example.com/events?x=%23#ct=500&rt=3000&tt=9000&rc=3&rp=4xx,5xx&er=us-east")
    assert url == "https://example.com/events?x=%23"
    assert policy == RetryPolicy(500, 3000, 9000, 3, frozenset({"4xx", "5xx"}))
    assert warnings == ()


def test_all_is_every_kind() -> None:
    assert parse("http://a/#rp=all")[1].retry_on == frozenset(RETRY_CONDITIONS)
    assert parse("http://a/#rp=rt,all")[1].retry_on == frozenset(RETRY_CONDITIONS)


def test_of_an_endless_fragment_the_beginning_is_read() -> None:
    _, policy, warnings = parse("http://a/#ct=500&" + "x" * 10_000 + "&ct=600")
    assert policy == RetryPolicy(connect_ms=500)
    assert warnings[0] == "the URL's fragment is too long: only its first 8192 characters are used"


@pytest.mark.parametrize(
    ("fragment", "expected", "warned"),
    [
        ("ct=99", RetryPolicy(connect_ms=100), "ct=99"),
        ("ct=10001", RetryPolicy(connect_ms=10_000), "100 to 10000"),
        ("rt=40001", RetryPolicy(read_ms=40_000), "100 to 40000"),
        ("tt=60000", RetryPolicy(total_ms=55_000), "100 to 55000"),
        ("rc=6", RetryPolicy(retries=5), "0 to 5"),
        ("rc=-1", RetryPolicy(retries=0), "0 to 5"),
        ("rc=" + "9" * 5000, RetryPolicy(retries=5), "0 to 5"),
        ("rc=many", RetryPolicy(), "not a whole number"),
        ("rc=", RetryPolicy(), "not a whole number"),
        ("rc=٣", RetryPolicy(), "not a whole number"),
        ("section", RetryPolicy(), "section="),
        ("timeout=3", RetryPolicy(), "timeout="),
        ("rp=5xx,6xx", RetryPolicy(retry_on=frozenset({"5xx"})), "6xx"),
        ("rp=", RetryPolicy(), "rp="),
    ],
)
def test_wrong_value_is_clamped_or_ignored_with_a_warning(fragment: str, expected: RetryPolicy, warned: str) -> None:
    _, policy, warnings = parse(f"https://example.com/#{fragment}")
    assert policy == expected
    assert len(warnings) == 1
    assert warned in warnings[0]


@given(st.text())
def test_no_fragment_breaks_the_policy(fragment: str) -> None:
    _, policy, _ = parse("https://example.com/#" + fragment)
    assert 100 <= policy.connect_ms <= 10_000
    assert 100 <= policy.read_ms <= 40_000
    assert 100 <= policy.total_ms <= 55_000
    assert 0 <= policy.retries <= 5
    assert policy.retry_on <= set(RETRY_CONDITIONS)


def test_warnings_about_a_fragment_are_short() -> None:
    warnings = parse("http://example.com/#" + "&".join(f"{'x' * 60}=1&ct={'y' * 60}" for _ in range(50)))[2]
    assert len(warnings) == 11 and "90 more" in warnings[-1]
    assert all(len(warning) < 200 for warning in warnings)


def test_a_delivered_request_is_not_tried_again() -> None:
    assert next_delay_ms(RetryPolicy(retry_on=frozenset(RETRY_CONDITIONS)), [status(204)], 10, 0.5) is None


def test_rc_retries_then_no_more() -> None:
    policy = RetryPolicy(retries=2)
    assert next_delay_ms(policy, [FAILED] * 2, 10, 0.0) == 0
    assert next_delay_ms(policy, [FAILED] * 3, 10, 0.0) is None
    assert next_delay_ms(replace(policy, retries=0), [FAILED], 10, 0.0) is None


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        *((replace(FAILED, failure=failure), kind) for failure, kind in RETRIED_AS.items()),
        (status(404), "4xx"),
        (status(429), "4xx"),
        (status(500), "5xx"),
        (status(304), None),
        (replace(FAILED, failure="body"), None),
        (replace(FAILED, failure="redirects"), None),
        (replace(FAILED, failure="refused"), None),
    ],
)
def test_only_what_rp_names_is_retried(outcome: AttemptOutcome, kind: str | None) -> None:
    retried = {
        k
        for k in RETRY_CONDITIONS
        if next_delay_ms(RetryPolicy(retry_on=frozenset({k})), [outcome], 10, 0.0) is not None
    }
    assert retried == ({kind} if kind else set())


def test_backoff_doubles_from_250_ms_with_full_jitter() -> None:
    policy = RetryPolicy(retries=5)
    longest = [next_delay_ms(policy, [FAILED] * count, 0, 0.999_999) for count in range(1, 6)]
    assert longest == [249, 499, 999, 1999, 3999]
    assert [next_delay_ms(policy, [FAILED] * count, 0, 0.0) for count in range(1, 6)] == [0] * 5


def test_backoff_stays_within_tt() -> None:
    assert next_delay_ms(RetryPolicy(total_ms=1000), [FAILED], 900, 0.999_999) == 99
    assert next_delay_ms(RetryPolicy(total_ms=1000), [FAILED], 1000, 0.0) is None


def test_retry_after_is_honoured_within_tt() -> None:
    policy = RetryPolicy(total_ms=5000, retry_on=frozenset({"5xx"}))
    assert next_delay_ms(policy, [status(503, 3000)], 1000, 0.5) == 3000
    assert next_delay_ms(policy, [status(503, 4000)], 1000, 0.5) is None
    assert next_delay_ms(policy, [status(503, 0)], 1000, 0.5) == 125


@given(st.integers(0, 5), st.integers(0, 60_000), st.floats(0, 1, exclude_max=True), st.none() | st.integers(0, 99_999))
def test_the_next_try_begins_before_tt_is_over(made: int, elapsed: int, random: float, retry_after: int | None) -> None:
    policy = RetryPolicy(retries=5, retry_on=frozenset(RETRY_CONDITIONS))
    delay = next_delay_ms(policy, [status(503, retry_after)] * (made + 1), elapsed, random)
    assert delay is None or (delay >= 0 and elapsed + delay < policy.total_ms)


def test_retry_after_in_seconds_and_as_a_date() -> None:
    now_ms = 1_700_000_000_000
    assert retry_after_ms("120", now_ms) == 120_000
    assert retry_after_ms(" 0 ", now_ms) == 0
    assert retry_after_ms(formatdate(1_700_000_030, usegmt=True), now_ms) == 30_000
    assert retry_after_ms("Sunday, 06-Nov-94 08:49:37 GMT", now_ms) == 0


@pytest.mark.parametrize("value", [None, "", "soon", "-5", "1.5", "٣", "Fri, 99 Foo 2026 00:00:00 GMT"])
def test_a_retry_after_that_says_nothing_is_none(value: str | None) -> None:
    assert retry_after_ms(value, 0) is None


def test_a_retry_after_of_a_thousand_digits_is_only_long() -> None:
    assert (retry_after_ms("9" * 5000, 0) or 0) > 55_000
