"""`ari-conf worker` as a program: no other module named tasks is in its way, and signals end or restart it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.redis import RedisServer
from tests.tasks.fleet import ROOT, until


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Return a working directory with modules that end a program that imports them."""
    refusal = "raise SystemExit('a module of the user was imported')"
    for name in ("folder/tasks.py", "folder/celeryconfig.py", "path/tasks/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(refusal)
    return tmp_path / "folder"


def test_a_worker_runs_beside_a_user_s_own_tasks(redis_server: RedisServer, hostile: Path) -> None:
    log = hostile.parent / "log"
    named = {"ARI_CONF_REDIS_URL": redis_server.url, "PYTHONPATH": f"{hostile.parent / 'path'}:{ROOT}"}
    # Like the installed program, without the working directory in its path.
    command = [sys.executable, "-P", "-m", "ari_conf", "worker", "-Q", "callbacks"]
    with log.open("wb") as output:
        worker = subprocess.Popen(command, env=os.environ | named, cwd=hostile, stdout=output, stderr=output)
    try:
        until(lambda: log.read_text().count("ready.") == 1 or worker.poll() is not None, 60)
        assert worker.poll() is None, log.read_text()
        worker.send_signal(signal.SIGHUP)
        until(lambda: log.read_text().count("ready.") == 2 or worker.poll() is not None, 60)
        assert worker.poll() is None, log.read_text()
        assert log.read_text().count("process started") == 2
        worker.terminate()
        assert worker.wait(60) == 0
    finally:
        worker.kill()
        worker.wait()


def test_its_help_is_celery_s(hostile: Path) -> None:
    environment = os.environ | {"PYTHONPATH": f"{hostile.parent / 'path'}:{ROOT}"}
    command = [sys.executable, "-P", "-m", "ari_conf", "worker", "--help"]
    ran = subprocess.run(command, env=environment, cwd=hostile, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert "Usage: python -m tasks worker [OPTIONS]" in ran.stdout and "--queues" in ran.stdout
