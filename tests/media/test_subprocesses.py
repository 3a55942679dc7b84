"""Tests of the limits on a program with hostile input, with real programs that try to exceed them."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ari_conf.errors import SoundError
from ari_conf.media import subprocesses
from ari_conf.media.subprocesses import STDERR_BYTES, Limits, run

LIMITS = Limits(seconds=20, memory_mb=400, file_mb=1)


async def python(text: str, limits: Limits = LIMITS, stdin: bytes = b"", seconds: float = 300) -> None:
    await run([sys.executable, "-I", "-c", text], stdin, seconds, limits)


async def output_of(tmp_path: Path, text: str) -> str:
    """Return the program's output."""
    path = tmp_path / "told"
    await python(f"import sys; sys.stdout = open({str(path)!r}, 'w')\n{text}")
    return path.read_text().strip()


async def test_programs_do_not_see_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARI_CONF_REDIS_URL", "redis://:secret@10.0.0.1")
    seen = await output_of(tmp_path, "import os; print(sorted(set(os.environ) - {'LC_CTYPE'}), os.environ['HOME'])")
    assert seen == "['HOME', 'LANG', 'PATH'] /nonexistent"


async def test_programs_run_at_low_priority_without_new_rights(tmp_path: Path) -> None:
    seen = await output_of(tmp_path, "import os; print(os.nice(0)); print(open('/proc/self/status').read())")
    assert seen.startswith(str(min(19, os.nice(0) + subprocesses.NICE)))
    assert "NoNewPrivs:\t1" in seen


async def test_programs_can_not_reach_the_network() -> None:
    if "--net" not in subprocesses.confinement():
        pytest.skip("this machine lets nobody take the network from a program")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        with pytest.raises(SoundError, match="Network is unreachable"):
            await python(f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)")


@pytest.mark.parametrize(
    ("text", "limits", "reason"),
    [
        ("while True: pass", Limits(1, 400), "it took more than 1 s of processor time"),
        ("x = bytearray(500 << 20)", LIMITS, "MemoryError"),
        ("open({path!r}, 'wb').write(bytes(2 << 20))", LIMITS, "it wrote more than 1 MB|File too large"),
        ("f = [open('/dev/null') for _ in range(100)]", LIMITS, "Too many open files"),
        ("raise SystemExit('no such voice')", LIMITS, "no such voice"),
        ("raise SystemExit(3)", LIMITS, "exit status 3"),
    ],
    ids=["time", "memory", "disk", "files", "complaint", "status"],
)
async def test_resource_limits_are_enforced(tmp_path: Path, text: str, limits: Limits, reason: str) -> None:
    path = tmp_path / "written"
    with pytest.raises(SoundError, match=f"^python[0-9.]* failed: .*({reason})"):
        await python(text.format(path=str(path)), limits)
    assert not path.exists() or path.stat().st_size <= 1 << 20


async def test_endless_error_output_costs_no_memory() -> None:
    much = "[sys.stderr.write('x' * 65536) for _ in range(200)]"
    text = f"import sys; {much}; sys.exit('the end' + 'x' * {STDERR_BYTES})"
    with pytest.raises(SoundError) as failed:
        await python(text)
    assert len(str(failed.value)) < 300


async def test_a_program_that_does_not_read_its_input_can_succeed() -> None:
    await python("pass", stdin=bytes(10 << 20))


async def test_a_terminated_program_ends_with_all_its_children(tmp_path: Path) -> None:
    """This includes children that outlive it."""
    pid = tmp_path / "pid"
    child = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    text = f"import os, sys, time\nif os.fork(): {{}}\nelse: exec({child!r})"
    for parent in ("time.sleep(60)", "sys.exit()"):
        with pytest.raises(SoundError, match="did not finish within 2 s"):
            await python(text.format(parent), seconds=2)
        async with asyncio.timeout(10):
            while _lives(int(pid.read_text())):  # noqa: ASYNC110 (the kernel sends no signal)
                await asyncio.sleep(0.01)
        pid.unlink()


def _lives(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_missing_confinement_is_logged_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(subprocesses, "_works", lambda _: False)
    monkeypatch.setattr(subprocesses.shutil, "which", lambda _: None)
    subprocesses.confinement.cache_clear()
    subprocesses._has_prlimit.cache_clear()
    try:
        with capture_logs() as logs:
            for _ in range(2):
                await python("pass")
        assert [line["event"] for line in logs] == ["network isolation unavailable", "resource limits unavailable"]
    finally:
        subprocesses.confinement.cache_clear()
        subprocesses._has_prlimit.cache_clear()


async def test_confinement_costs_little_time() -> None:
    """The time before each program is too short to be heard, even on a busy machine."""
    subprocesses.confinement()

    async def takes(args: list[str]) -> float:
        began = time.monotonic()
        await run(args, b"", 300, LIMITS)
        return time.monotonic() - began

    assert min([await takes(["true"]) for _ in range(10)]) < 0.2
