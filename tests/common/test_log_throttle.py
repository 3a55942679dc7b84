"""Tests of log throttling: a repeated failure is logged immediately, then once a minute."""

from __future__ import annotations

from ari_conf.common.log_throttle import LOG_INTERVAL_S, LogThrottle


def test_a_failure_is_logged_at_once_then_each_minute_and_at_once_after_a_success() -> None:
    now = 100.0
    seldom = LogThrottle(lambda: now)
    told = []
    for _ in range(5 * int(LOG_INTERVAL_S)):
        told.append(seldom.should_log())
        now += 0.5
    assert told[0] and sum(told) == 3
    seldom.reset()
    assert seldom.should_log() and not seldom.should_log()
