"""Tests of bounded logs: programs that append continue, and readers notice."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ari_conf.cli.up import _show_new_lines
from ari_conf.local import log_files, processes
from ari_conf.local.processes import free_port
from ari_conf.local.system import LocalSystem
from tests.redis import RedisServer

WRITER = """
import sys
for line in sys.stdin:
    print(line, end="", flush=True)
"""


def test_a_long_log_is_moved_and_its_program_continues(tmp_path: Path) -> None:
    log = tmp_path / "serve.log"
    log.touch(0o600)
    with log.open("ab") as file:
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER], stdin=subprocess.PIPE, stdout=file, text=True, bufsize=1
        )
    try:
        assert writer.stdin is not None

        def write(text: str) -> None:
            size = log.stat().st_size
            writer.stdin.write(text + "\n")  # type: ignore[union-attr]
            processes_end = size + len(text) + 1
            while log.stat().st_size < processes_end:
                assert writer.poll() is None

        write("first")
        log_files.limit_all([tmp_path], 6)
        assert log.read_text() == "first\n", "it is not too long"
        write("second")
        log_files.limit_all([tmp_path], 6)
        assert log.read_text() == "" and (tmp_path / "serve.log.1").read_text() == "first\nsecond\n"
        write("third")
        assert log.read_bytes() == b"third\n", "the program appends"
        write("fourth")
        log_files.limit_all([tmp_path], 6)
        assert (tmp_path / "serve.log.1").read_text() == "third\nfourth\n", "one earlier log is kept"
        assert (tmp_path / "serve.log.1").stat().st_mode & 0o777 == 0o600
        assert sorted(path.name for path in tmp_path.iterdir()) == ["serve.log", "serve.log.1"]
    finally:
        writer.communicate(timeout=60)


def test_readers_of_a_log_notice_that_it_was_emptied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "serve.log"
    log.write_text('{"n": 1}\n{"n": 2}\n')
    offset = _show_new_lines(log, 0, "serve", str)
    log_files.limit(log, 0)
    offset = _show_new_lines(log, offset, "serve", str)
    with log.open("a") as file:
        file.write('{"n": 3}\n')
    assert _show_new_lines(log, offset, "serve", str) == len('{"n": 3}\n')
    assert re.findall(r'"n": (\d)', capsys.readouterr().out) == ["1", "2", "3"]


async def test_a_system_that_starts_limits_the_logs_of_earlier_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with LocalSystem(tmp_path, components=("redis",)) as system:
        first = system.log("redis").stat().st_size
    monkeypatch.setattr(log_files, "MAX_BYTES", first // 4)
    async with LocalSystem(tmp_path, components=("redis",)) as system:
        assert system.process("redis").read_log().count("Ready to accept connections") == 1
        assert (tmp_path / "logs" / "redis.log.1").stat().st_size >= first
        # While it runs, too: its reader then reads from the beginning.
        await asyncio.to_thread(system.limit_logs)
        assert system.process("redis").read_log() == ""


async def test_the_example_for_logrotate_works_with_a_running_process(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """The file in docs/, with another folder, and a real `ari-conf web` that appends to its log."""
    program = shutil.which("logrotate", path="/usr/sbin:/usr/bin:/sbin:/bin")
    assert program, "logrotate is not installed: `make test` installs it"
    text = (Path(__file__).parents[2] / "docs" / "logrotate.conf").read_text()
    assert "/var/log/ari_conf/*.log {" in text
    configuration = tmp_path / "logrotate.conf"
    configuration.write_text(text.replace("/var/log/ari_conf", str(tmp_path)).replace("    su root root\n", ""))
    configuration.chmod(0o644)
    settings = {
        "ARI_CONF_REDIS_URL": redis_server.url,
        "ARI_CONF_WEB_LISTEN": f"127.0.0.1:{free_port()}",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    log = tmp_path / "web.log"
    web = await processes.start(
        "web",
        [sys.executable, "-m", "ari_conf", "web"],
        log,
        ready=processes.log_matches("running on"),
        environment=processes.environment_without_settings() | settings,
    )
    try:
        rotate = [program, "--force", "--state", str(tmp_path / "state"), str(configuration)]
        done = await asyncio.to_thread(subprocess.run, rotate, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "process started" in (tmp_path / "web.log.1").read_text()
        assert "process started" not in log.read_text()
    finally:
        await processes.stop(web)
    assert log.read_text().startswith("{"), "the process continues at the beginning of the emptied log"
