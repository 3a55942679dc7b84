"""PostgreSQL servers for tests: a server of its own on a free port of 127.0.0.1, in a folder that only lives as long.

PostgreSQL does not run as root: then it is started as the user `postgres` of its package.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import psycopg

from tests.lateness import Patience

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
PASSWORD = "of the tests"


class PostgresServer:
    def __init__(self) -> None:
        self.programs = PROGRAMS[-1]
        # Not below pytest's folder, which the other user can't enter.
        self.folder = Path(tempfile.mkdtemp(prefix="ari_conf-postgresql-"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.is_root = os.geteuid() == 0
        if self.is_root:
            shutil.chown(self.folder, "postgres", "postgres")
        self._process: subprocess.Popen[bytes] | None = None
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._run("initdb", "--auth=scram-sha-256", "--username=ari_conf", f"--pwfile={secret}", "--encoding=UTF8",
                  "--no-locale", "--no-sync", str(self.folder / "data"))  # fmt: skip

    def start(self) -> None:
        options = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": self.folder}
        options |= {"fsync": "off", "max_connections": 60}
        command = [self.programs / "postgres", "-D", self.folder / "data"]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._as_user(), *map(str, command)], stdout=log, stderr=log, cwd=self.folder, process_group=0
            )
        patience = Patience(30)
        while True:
            try:
                self.execute("SELECT 1")
                return
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self.folder / "log").read_text()
                assert not patience.over, "PostgreSQL did not start"

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://ari_conf:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.url(), autocommit=True, connect_timeout=5) as connection:
            connection.execute(statement.encode())

    def new_database(self, name: str) -> str:
        """Create a database, and return its URL."""
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def stop(self) -> None:
        """Stop the server at once; clients lose their connections."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGINT)
            self._process.wait()
            self._process = None

    def end(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _as_user(self) -> list[str]:
        words = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
        return words if self.is_root else []

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as_user(), str(self.programs / program), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder)
