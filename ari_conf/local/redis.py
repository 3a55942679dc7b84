"""Local Redis: on loopback, with its data in the system's folder, independent of any other Redis on the machine."""

from __future__ import annotations

import shutil
from pathlib import Path

from ari_conf.errors import SetupFailed
from ari_conf.local import processes
from ari_conf.local.processes import Process

PROGRAMS = ("redis-server", "valkey-server")


async def start(folder: Path, port: int, password: str, log: Path) -> Process:
    """Start Redis at redis://:PASSWORD@127.0.0.1:PORT/0, with the data that `folder` has from earlier runs.

    Raises SetupFailed.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The password is in a file, because every user of the machine sees the command line.
    configuration = folder / "redis.conf"
    configuration.touch(mode=0o600)
    configuration.write_text(f"requirepass {password}\n" if password else "")
    return await processes.start(
        "redis",
        [
            program(), str(configuration), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder),
            # Acknowledged writes are on disk within a second, and Redis never evicts keys: queued callbacks must not
            # be lost.
            "--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction",
            "--save", "", "--daemonize", "no",
        ],
        log,
        # The port opens before Redis has loaded its file; until then Redis refuses commands.
        ready=processes.log_matches("Ready to accept connections"),
    )  # fmt: skip


def program() -> str:
    for name in PROGRAMS:
        if found := shutil.which(name):
            return found
    raise SetupFailed(
        "no Redis was found on the PATH: run `apt-get install redis-server` (or valkey-server), or set "
        "ARI_CONF_REDIS_URL to a Redis that runs elsewhere"
    )
