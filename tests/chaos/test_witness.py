"""Tests of the witness: it must see stalls of the machine."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.chaos.seen import stood_still
from tests.chaos.witness import STALL_MS, Witness


@pytest.mark.parametrize("stands_s", [0.1, 0.4])
def test_it_sees_a_standstill_that_was_planted(stands_s: float) -> None:
    """Stop the process that watches one processor, so that it cannot run there."""
    with Witness() as witness:
        witness.stalls()  # both watch now
        pid = witness._watching[0][0].pid
        assert pid is not None
        began = time.time() * 1000
        os.kill(pid, signal.SIGSTOP)
        time.sleep(stands_s)
        os.kill(pid, signal.SIGCONT)
        stood_ms = time.time() * 1000 - began
        stalls = [(at, ms) for at, ms in witness.stalls() if at > began]
    longest = max(ms for _, ms in stalls)
    assert stands_s * 1000 - STALL_MS < longest
    assert stood_still(began, stood_ms, stalls) >= stands_s * 1000 - STALL_MS


def test_a_stall_that_was_not_seen_excuses_nothing() -> None:
    with Witness() as witness:
        assert stood_still(1000.0, 500.0, witness.stalls()) == 0.0
