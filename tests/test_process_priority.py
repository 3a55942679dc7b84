"""Tests of process priorities against the kernel's own report.

A kernel without session niceness reports none, and neither does it for sessions that the test started.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ari_conf.media import subprocesses
from tests import lateness

TOLD = """
import os
from ari_conf import process_priority
from tests.test_process_priority import session_nice
process_priority.lower_priority(7)
print(os.getpriority(os.PRIO_PROCESS, 0), session_nice("self"))
"""
TOLD_OF_A_NEW_SESSION = "from tests.test_process_priority import session_nice; print(session_nice('self'))"


def session_nice(process: int | str) -> str:
    """Return the niceness of the process's session, or "" where the kernel reports none."""
    told = Path(f"/proc/{process}/autogroup")
    # The content is "/autogroup-12126 nice 0", or nothing at all.
    return "".join(told.read_text().split()[-1:]) if told.exists() else ""


def new_session(code: str, leads: bool = True) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.check_output(command, text=True, start_new_session=leads).strip("\n")


@pytest.fixture(scope="module")
def weighs_sessions() -> bool:
    return bool(new_session(TOLD_OF_A_NEW_SESSION))


@pytest.mark.parametrize("leads", [True, False])
def test_a_process_yields_and_its_session_if_it_leads_it(leads: bool, weighs_sessions: bool):
    own, ours = os.getpriority(os.PRIO_PROCESS, 0), session_nice("self")
    nice, session = new_session(TOLD, leads).split(" ")
    assert int(nice) == own + 7
    assert session == ((str(own + 7) if weighs_sessions else "") if leads else ours)
    assert session_nice("self") == ours


async def test_rendering_yields_to_calls(weighs_sessions: bool):
    process = await subprocesses.start(["sleep", "60"], asyncio.subprocess.PIPE, subprocesses.Limits(None, 256))
    try:
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert session_nice(process.pid) == (str(own + subprocesses.NICE) if weighs_sessions else "")
        async with lateness.timeout():
            while os.getpriority(os.PRIO_PROCESS, process.pid) != own + subprocesses.NICE:  # noqa: ASYNC110 (`nice` tells nobody)
                await asyncio.sleep(0.01)
    finally:
        await subprocesses.terminate(process)
