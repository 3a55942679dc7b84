"""The commands for backups in docs/operations/upgrades-backups.md, as they are written there, with other folders."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

from ari_conf.recordings import index, jobs
from ari_conf.store import accounts
from tests import redis as redis_servers
from tests.recordings.test_jobs import stored
from tests.redis import RedisServer
from tests.tasks.fleet import until

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "operations" / "upgrades-backups.md"


def commands(heading: str, number: int = 0) -> str:
    """Return a block of commands below a heading."""
    section = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    (found,) = [text for text in section if text.startswith(f"{heading}\n")]
    return re.findall(r"^```\n(.*?)^```", found, re.DOTALL | re.MULTILINE)[number]


def run(script: str, server: RedisServer, folder: Path) -> None:
    """Run commands of the page, which must name no other folder than these."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name, command in (("ari-conf", f'exec {sys.executable} -m ari_conf "$@"'), ("systemctl", "exit 1")):
        (programs / name).write_text(f"#!/bin/sh\n{command}\n")
        (programs / name).chmod(0o755)
    for path, instead in (
        ("/var/lib/redis", str(server.folder)),
        ("/var/backups", f"{folder}/backups"),
        ("cd /", f"cd {folder}/root"),
        ("-C /", f"-C {folder}/root"),
        ("redis-cli", f"redis-cli -p {server.port}"),
    ):
        script = re.sub(rf"{re.escape(path)}(?=[\s/])", lambda _, text=instead: text, script)
    assert not re.search(
        r"(?<![\w/.])/(var|etc|usr|opt)", script.replace(str(folder), "").replace(str(server.folder), "")
    )
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "ARI_CONF_REDIS_URL": server.url,
        "ARI_CONF_CONFIG": "",
        "BACKUP": str(next((folder / "backups" / "ari_conf").glob("*"), "")),
    }
    done = subprocess.run(["sh", "-euc", script], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_a_backup_of_a_running_system_is_restored(redis_server: RedisServer, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name, text in (("ari_conf/ari_conf.toml", "api_rate = 7"), ("asterisk/pjsip.conf", "password = x")):
        (root / "etc" / name).parent.mkdir(parents=True)
        (root / "etc" / name).write_text(text)
        (root / "etc" / name).chmod(0o640)
    record = accounts.add(redis_server.client, 1, "acme", recordings_days=7)
    accounts.rotate_token(redis_server.client, "acme")
    record = accounts.get(redis_server.client, "acme")  # type: ignore[assignment]
    assert jobs.add(redis_server.client, stored(1, auth_id="acme"), [("acme:o:h", b"{}")], None)
    # Redis is written, and rewrites its files, while they are copied.
    redis_server.client.config_set("auto-aof-rewrite-min-size", "64kb")
    stop = threading.Event()

    def write() -> None:
        count = 0
        while not stop.is_set():
            redis_server.client.set("ari_conf:test", "x" * 10_000 + str(count := count + 1))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        until(lambda: redis_server.client.info("persistence")["aof_current_size"] > 1_000_000)
        run(commands("Back up"), redis_server, tmp_path)
    finally:
        stop.set()
        writer.join()
    assert redis_server.client.config_get("auto-aof-rewrite-percentage") == {"auto-aof-rewrite-percentage": "100"}
    (backup,) = (tmp_path / "backups" / "ari_conf").iterdir()
    assert backup.stat().st_mode & 0o077 == 0 and (backup / "accounts").stat().st_mode & 0o077 == 0

    # The files.
    (root / "etc" / "ari_conf" / "ari_conf.toml").unlink()
    run(commands("Restore", 0), redis_server, tmp_path)
    assert (root / "etc" / "ari_conf" / "ari_conf.toml").read_text() == "api_rate = 7"
    assert (root / "etc" / "ari_conf" / "ari_conf.toml").stat().st_mode & 0o777 == 0o640

    # Redis, which has lost everything. The test stops and starts it instead of systemctl.
    redis_server.client.flushall()
    redis_server.stop()
    block = "".join(
        line + "\n" for line in commands("Restore", 1).splitlines() if not line.startswith(("systemctl", "chown"))
    )
    run(block, redis_server, tmp_path)
    redis_server.start()
    assert accounts.get(redis_server.client, "acme") == record
    assert [one.recording_id for one in index.search(redis_server.client, "acme")[1]] == ["r1"]
    assert redis_server.client.llen("ari_conf:callbacks:partition:acme:o:h") == 1

    # The accounts alone, into another Redis.
    other = redis_servers.start(tmp_path / "other")
    try:
        run(commands("Restore", 2), other, tmp_path)
        assert accounts.get(other.client, "acme") == record
    finally:
        other.stop()


def test_removal_deletes_every_key_and_no_other(redis_server: RedisServer, tmp_path: Path) -> None:
    accounts.add(redis_server.client, 1, "acme")
    redis_server.client.mset({f"ari_conf:{n}": "x" for n in range(1200)} | {"mine": "x"})
    section = PAGE.read_text().partition("## Remove an installation")[2]
    (line,) = [line.strip() for line in section.splitlines() if "redis-cli --scan" in line]
    run(line, redis_server, tmp_path)
    assert redis_server.client.keys() == [b"mine"]
