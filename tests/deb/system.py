"""Debian systems for tests of the package: a root of a release, in which systemd runs with a network of its own."""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar
from urllib.error import HTTPError
from urllib.request import urlopen

from ari_conf.common.installation import CHECKOUT

assert CHECKOUT is not None
DEBIAN = CHECKOUT / "debian"
CLONE_NEWNET = 0x40000000
START_TIMEOUT_S = 60.0
ENVIRONMENT = ("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/root")
T = TypeVar("T")


class System:
    """A system in `root`, which is stopped until `boot`."""

    def __init__(self, release: str, root: Path) -> None:
        self.release = release
        self.root = root
        self._process: subprocess.Popen[bytes] | None = None
        self._init = 0
        """Process ID of its systemd, outside."""
        self._network: ThreadPoolExecutor | None = None
        run([str(DEBIAN / "root"), "make", release, str(root)])

    def install(self, *packages: str, recommends: bool = False) -> str:
        """Install packages with this machine's network, before `boot`. Return the output."""
        options = [] if recommends else ["--no-install-recommends"]
        return self.run_before_boot("apt-get", "-q", "install", "-y", *options, *packages)

    def run_before_boot(self, *command: str) -> str:
        return run([str(DEBIAN / "root"), "run", str(self.root), *command])

    def boot(self) -> None:
        self._process = subprocess.Popen([str(DEBIAN / "root"), "boot", str(self.root)])
        self.until(self._has_systemd)
        self.until(lambda: self.run("systemctl", "is-system-running", check=False).strip() in ("running", "degraded"))
        self._network = ThreadPoolExecutor(1, initializer=_enter_network, initargs=(self._init,))

    def shut_down(self) -> None:
        if self._network is not None:
            self._network.shutdown()
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command in the booted system, and return its output and errors."""
        inside = ["nsenter", "--all", "--target", str(self._init), *ENVIRONMENT, "DEBIAN_FRONTEND=noninteractive"]
        return run([*inside, *command], check=check)

    def in_network(self, work: Callable[[], T]) -> T:
        """Call a function of the tests in a thread whose network, and that of what it starts, is the system's."""
        assert self._network is not None
        return self._network.submit(work).result()

    def get(self, url: str) -> tuple[int, str]:
        """Return status and body of a GET in the system's network; (0, …) if nothing answers."""

        def ask() -> tuple[int, str]:
            try:
                with urlopen(url, timeout=5) as response:
                    return response.status, response.read().decode()
            except HTTPError as error:
                return error.code, error.read().decode()
            except OSError as error:
                return 0, str(error)

        return self.in_network(ask)

    def show(self, unit: str, name: str) -> str:
        return self.run("systemctl", "show", "--value", "--property", name, unit).strip()

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not condition():
            assert self._process is None or self._process.poll() is None, "the system's systemd ended"
            assert time.monotonic() < deadline, self.run("journalctl", "-n", "60", "--no-pager", check=False)
            time.sleep(0.05)

    def _has_systemd(self) -> bool:
        assert self._process is not None
        pid = self._process.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with suppress(OSError):  # it has ended meanwhile
                if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                    self._init = int(child)
        return bool(self._init) and Path(f"/proc/{self._init}/root/run/systemd/private").exists()


def run(command: list[str], *, check: bool = True) -> str:
    """Run a command and return its output and errors, which are also the failure's message."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0 or not check, f"{' '.join(command)}: {done.returncode}\n{done.stdout[-6000:]}"
    return done.stdout


def _enter_network(pid: int) -> None:
    """Move this thread into the network of a process, as setns(2) does for threads."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/proc/{pid}/ns/net").open("rb") as network:
        if libc.setns(network.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
