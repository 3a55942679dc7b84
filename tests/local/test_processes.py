"""Tests of starting, awaiting and stopping programs, with small Python programs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ari_conf.errors import SetupFailed
from ari_conf.local import processes
from tests.lateness import SOON_S, Patience


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pid: int) -> bool:
    patience = Patience(SOON_S)
    while is_there(pid) and not patience.over:
        time.sleep(0.02)
    return not is_there(pid)


SLEEP = "import time; print('here I am', flush=True); time.sleep(60)"


async def test_it_is_ready_once_its_log_says_so(tmp_path):
    process = await processes.start(
        "one", python(SLEEP), tmp_path / "one.log", ready=processes.log_matches("here I am")
    )
    assert process.is_running
    await processes.stop(process)
    assert not process.is_running


async def test_it_is_ready_once_its_port_answers(tmp_path):
    port = processes.free_port()
    server = python(f"import http.server; http.server.HTTPServer(('127.0.0.1', {port}), None).serve_forever()")
    process = await processes.start("server", server, tmp_path / "log", ready=processes.port_is_open("127.0.0.1", port))
    assert processes.port_answers("127.0.0.1", port) and not processes.is_free(port)
    await processes.stop(process)
    assert not processes.port_answers("127.0.0.1", port) and processes.is_free(port)


async def test_a_process_that_ends_before_it_is_ready_is_reported_with_the_reason(tmp_path):
    with pytest.raises(SetupFailed, match=r"(?s)one ended with code 3; the end of .*no such thing"):
        code = "print('no such thing'); raise SystemExit(3)"
        await processes.start("one", python(code), tmp_path / "one.log", ready=processes.log_matches("never"))


async def test_a_process_that_is_never_ready_is_stopped_and_its_log_shown(tmp_path):
    command = ["sh", "-c", "echo $$; exec sleep 60"]
    with pytest.raises(SetupFailed, match="was not ready after 1 s"):
        await processes.start("one", command, tmp_path / "log", ready=processes.log_matches("never"), deadline=1)
    assert gone(int((tmp_path / "log").read_text()))


async def test_the_log_of_an_earlier_run_does_not_count(tmp_path):
    (tmp_path / "log").write_text("here I am\n")
    with pytest.raises(SetupFailed, match="ended with code 0"):
        await processes.start("one", python("pass"), tmp_path / "log", ready=processes.log_matches("here I am"))


async def test_an_immediate_log_line_counts(tmp_path, monkeypatch):
    start, log = subprocess.Popen, tmp_path / "log"

    def late(*arguments, **more):
        popen = start(*arguments, **more)
        while "here I am" not in log.read_text():
            time.sleep(0.01)
        return popen

    monkeypatch.setattr(subprocess, "Popen", late)
    process = await processes.start("one", python(SLEEP), log, ready=processes.log_matches("here I am"), deadline=5)
    await processes.stop(process)


async def test_a_program_that_is_missing_is_named(tmp_path):
    with pytest.raises(SetupFailed, match="one could not be started: No such file or directory: /nowhere/one"):
        await processes.start("one", ["/nowhere/one"], tmp_path / "log")


async def test_a_process_that_ignores_sigterm_is_killed_after_the_grace(tmp_path):
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP
    process = await processes.start("deaf", python(deaf), tmp_path / "log", ready=processes.log_matches("here I am"))
    await processes.stop(process, grace=0.2)
    assert process.popen.returncode == -signal.SIGKILL


async def test_kill_reaches_child_processes_too(tmp_path):
    child = "import subprocess; print(subprocess.Popen(['sleep', '60']).pid, flush=True); import time; time.sleep(60)"
    process = await processes.start("one", python(child), tmp_path / "log", ready=processes.log_matches(r"\d+\n"))
    processes.kill(process)
    assert gone(int((tmp_path / "log").read_text()))


def test_a_process_does_not_outlive_a_killed_parent(tmp_path):
    code = f"""
import asyncio, os, pathlib, signal
from ari_conf.local import processes
log = pathlib.Path({str(tmp_path / "log")!r})
ready = processes.log_matches("here")
process = asyncio.run(processes.start("one", [{sys.executable!r}, "-c", {SLEEP!r}], log, ready=ready))
print(process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    parent = subprocess.run(python(code), capture_output=True, text=True, env=os.environ)
    assert parent.returncode == -signal.SIGKILL
    assert gone(int(parent.stdout))


@pytest.mark.parametrize(
    ("command", "end"),
    [
        ("exit 0", "Sh ended with code 0"),
        ("exit 3", "Sh ended with code 3"),
        ("kill -ABRT $$", "Sh ended with signal 6"),
        ("exit 139", "Sh ended with signal 11"),
    ],
)
async def test_the_end_of_a_process_is_described(tmp_path: Path, command: str, end: str) -> None:
    process = await processes.start("sh", ["sh", "-c", f"read wait; {command}"], tmp_path / "log")
    assert await processes.wait_ended(process, within=5)
    assert process.end == end


async def test_a_running_process_has_no_end(tmp_path: Path) -> None:
    process = await processes.start("sleep", ["sleep", "60"], tmp_path / "log")
    assert process.end == ""
    await processes.stop(process)
