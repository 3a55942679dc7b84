"""Against the kernel's own account of it; one that knows no niceness of sessions tells none."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ari_conf.media import programs

SESSIONS = Path("/proc/self/autogroup").exists()
TOLD = """
import os
from pathlib import Path
from ari_conf import niceness
niceness.yields(7)
session = Path("/proc/self/autogroup")
print(os.getpriority(os.PRIO_PROCESS, 0), session.read_text().split()[-1] if session.exists() else "")
"""


def session_nice(process: int | str) -> str:
    return Path(f"/proc/{process}/autogroup").read_text().split()[-1] if SESSIONS else ""


@pytest.mark.parametrize("leads", [True, False])
def test_a_process_yields_and_its_session_if_it_leads_it(leads: bool):
    own, ours = os.getpriority(os.PRIO_PROCESS, 0), session_nice("self")
    command = [sys.executable, "-c", TOLD]
    nice, session = subprocess.check_output(command, text=True, start_new_session=leads).strip("\n").split(" ")
    assert int(nice) == own + 7
    assert session == ((str(own + 7) if SESSIONS else "") if leads else ours)
    assert session_nice("self") == ours


async def test_what_is_rendered_yields_to_calls():
    process = await programs.start(["sleep", "60"], asyncio.subprocess.PIPE)
    try:
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert session_nice(process.pid) == (str(own + programs.NICE) if SESSIONS else "")
        async with asyncio.timeout(10):
            while os.getpriority(os.PRIO_PROCESS, process.pid) != own + programs.NICE:  # noqa: ASYNC110 (`nice` tells nobody)
                await asyncio.sleep(0.01)
    finally:
        await programs.end(process)
