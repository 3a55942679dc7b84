"""A Redis of our own: on loopback, its file in our folder, beside any that runs already."""

from __future__ import annotations

import shutil
from pathlib import Path

from ari_conf.errors import SetupFailed
from ari_conf.parts import processes
from ari_conf.parts.processes import Process

PROGRAMS = ("redis-server", "valkey-server")


async def start(folder: Path, port: int, password: str, log: Path) -> Process:
    """Redis at redis://:PASSWORD@127.0.0.1:PORT/0, with what `folder` holds from the last time. Raises SetupFailed."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # In a file, since every user of the machine sees the command line.
    configuration = folder / "redis.conf"
    configuration.touch(mode=0o600)
    configuration.write_text(f"requirepass {password}\n" if password else "")
    return await processes.start(
        "redis",
        [
            program(), str(configuration), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder),
            # What is acknowledged is on the disk a second later, and nothing is ever thrown out to make room: the
            # callbacks that wait in it are promises.
            "--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction",
            "--save", "", "--daemonize", "no",
        ],
        log,
        # The port opens before the file is read in; until then commands are refused.
        ready=processes.logs("Ready to accept connections"),
    )  # fmt: skip


def program() -> str:
    for name in PROGRAMS:
        if found := shutil.which(name):
            return found
    raise SetupFailed(
        "no Redis is on the PATH: `apt-get install redis-server` (or valkey-server) brings one, or set "
        "ARI_CONF_REDIS_URL to one that runs elsewhere"
    )
