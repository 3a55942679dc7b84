"""Local Asterisk for `ari-conf up` and the tests: asterisk/get installs it, asterisk/configure configures it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from ari_conf.common.installation import bundled_folder, data_folder
from ari_conf.errors import SetupFailed
from ari_conf.local.processes import READY_TIMEOUT_S, environment_without_settings, free_port

DEFAULT_ROOT = data_folder() / "asterisk"
MIN_VERSION = 20
RTP_PORTS = 4000
SUDO = ("sudo", "-n")
END_WITH_INPUT_SCRIPT = """
exec 3<&0
"$@" </dev/null & child=$!
(read -r _ <&3; kill "$child") & reader=$!
wait "$child"; code=$?
kill "$reader" 2>/dev/null
exit "$code"
"""


def find(root: Path = DEFAULT_ROOT) -> str:
    """Return the Asterisk of this machine as asterisk/get prints it: "native" or "root FOLDER".

    Raises SetupFailed if the machine has none; installs nothing.
    """
    if (root / ".complete").exists():
        return f"root {root}"
    version = (
        subprocess.run(["asterisk", "-V"], capture_output=True, text=True).stdout if _is_installed("asterisk") else ""
    )
    number = version.removeprefix("Asterisk ").partition(".")[0]
    if number.isdigit() and int(number) >= MIN_VERSION:
        return "native"
    raise SetupFailed(
        f"no Asterisk {MIN_VERSION} or newer was found on the PATH or in {root}; run `{_script('get')} {root}`"
    )


def install(root: Path = DEFAULT_ROOT) -> str:
    """Return the same as `find`, after installing an Asterisk if necessary (about a minute; progress on stderr).

    Raises SetupFailed if the installation fails.
    """
    found = subprocess.run([_script("get"), str(root)], stdout=subprocess.PIPE, text=True)
    if found.returncode:
        raise SetupFailed("`asterisk/get` could not install Asterisk on this machine: see its output above")
    return found.stdout.strip()


@dataclass
class LocalAsterisk:
    """Asterisk as a child process: it writes only below `folder`; ARI listens on `host`. Port 0 means a free port."""

    folder: Path
    where: str
    """The result of `find` or `install`."""
    account: str = "demo"
    """The account of calls for which the dialplan names no other."""
    app: str = "ari_conf"
    user: str = "ari_conf"
    password: str = field(default_factory=secrets.token_hex, repr=False)
    outbound: bool = False
    """True if Asterisk opens the event WebSocket, to `websocket_port`; otherwise the server opens it."""
    trust_callers: bool = True
    rtp_timeout: int = 55
    """Seconds without a packet after which a caller counts as gone."""
    max_calls: int = 1000
    host: str = "127.0.0.1"
    sip_host: str = "127.0.0.1"
    """The address to which phones send calls and audio."""
    sip_port: int = 0
    http_port: int = 0
    websocket_port: int = 0
    more: dict[str, str] = field(default_factory=dict)
    """Further settings of asterisk/configure, by their names without ARI_CONF_."""
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.folder = self.folder.resolve()
        self.sip_port = self.sip_port or free_port(socket.SOCK_DGRAM, self.sip_host)
        self.http_port = self.http_port or free_port(host=self.host)
        self.websocket_port = self.websocket_port or free_port(host=self.host)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.http_port}/ari"

    @property
    def entity_id(self) -> str:
        """Return the entity ID: the same for each Asterisk in this folder, so that it finds its data in Redis again."""
        digest = hashlib.sha256(f"{socket.gethostname()} {self.folder}".encode()).hexdigest()
        return ":".join(("02", *(digest[i : i + 2] for i in range(0, 10, 2))))

    @property
    def log_file(self) -> Path:
        return self.folder / "log" / "asterisk.log"

    @property
    def recordings(self) -> Path:
        return self.folder / "spool" / "recording"

    def start(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Start Asterisk and wait until it accepts requests and calls, at most `timeout_s` seconds.

        Raises SetupFailed with the end of its log if it ends or is not ready in time.
        """
        if self.uses_sudo and not _is_sudo_usable():
            raise SetupFailed(
                "Asterisk could not be started: it needs root, since this kernel does not let users create "
                "namespaces, and sudo asks for a password or is not installed; run `sudo -v` in this terminal first, "
                f"or install Asterisk {MIN_VERSION} or newer, which needs no root"
            )
        self._configure()
        with (self.folder / "log" / "output.log").open("ab") as output:
            self.process = subprocess.Popen(
                self._long_running_command("asterisk", "-f", "-C", str(self.folder / "etc" / "asterisk.conf")),
                stdin=subprocess.PIPE if self.uses_sudo else subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C must reach only this process, which stops its children in order. With sudo, a new session would
                # make sudo ask for the password again.
                start_new_session=not self.uses_sudo,
                process_group=0 if self.uses_sudo else None,
            )
        deadline = time.monotonic() + timeout_s
        while not self._is_ready():
            if self.process.poll() is not None:
                raise SetupFailed(f"Asterisk ended during its start; {self._log_tail()}")
            if time.monotonic() > deadline:
                self.stop()
                raise SetupFailed(f"Asterisk was not ready after {timeout_s:g} s; {self._log_tail()}")
            time.sleep(0.05)

    def stop(self, timeout_s: float = 5.0) -> None:
        """Stop Asterisk and its calls: SIGTERM, and SIGKILL if it has not ended after `timeout_s` seconds."""
        if self.process is None or self.process.poll() is not None:
            return
        if self.process.stdin is not None:
            self.process.stdin.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            # An unprivileged process may not signal an Asterisk that runs as root, but that one ends with its input.
            with suppress(PermissionError):
                self.process.send_signal(number)
            try:
                self.process.wait(timeout_s)
                return
            except subprocess.TimeoutExpired:
                continue

    def command(self, *words: str) -> list[str]:
        """Return the command that runs a program of that system (asterisk, sipp) with `folder` under the same path."""
        # Asterisk must not outlive this process, however that ends.
        bound = ["setpriv", "--pdeathsig", "TERM"] if _is_installed("setpriv") else []
        if self.where == "native":
            return [*bound, *words]
        root = self.where.removeprefix("root ")
        sudo = SUDO if self.uses_sudo else ()
        return [*sudo, *bound, _script("run-in"), root, str(self.folder), *words]

    def _long_running_command(self, *words: str) -> list[str]:
        """Return the command of a long-running program. With sudo it ends with its input (sudo may ask again later)."""
        command = self.command(*words)
        if not self.uses_sudo:
            return command
        return [*SUDO, "bash", "-c", END_WITH_INPUT_SCRIPT, "asterisk", *command[len(SUDO) :]]

    @property
    def uses_sudo(self) -> bool:
        return self.where != "native" and os.geteuid() != 0 and not _can_create_namespaces()

    def version(self) -> str:
        """Return the output of `asterisk -V`."""
        return subprocess.run(self.command("asterisk", "-V"), capture_output=True, text=True).stdout.strip()

    def ask(self, method: str, path: str) -> object:
        """Send one ARI request and return the decoded body. Raises OSError (urllib's HTTPError is one)."""
        request = urllib.request.Request(self.url + path, method=method, headers={"Authorization": self._authorization})
        with urllib.request.urlopen(request, timeout=5) as response:
            body = response.read()
        return json.loads(body) if body else None

    @property
    def _authorization(self) -> str:
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()

    def _configure(self) -> None:
        first_rtp_port = random.randrange(10000, 28000, 2)
        environment = {
            "ARI_CONF_ARI_USER": self.user,
            "ARI_CONF_ARI_PASSWORD": self.password,
            "ARI_CONF_ARI_APP": self.app,
            "ARI_CONF_ARI_SOCKET": "outbound" if self.outbound else "inbound",
            "ARI_CONF_ARI_LISTEN": f"{self.host}:{self.websocket_port}",
            "ARI_CONF_HTTP_BIND": f"{self.host}:{self.http_port}",
            "ARI_CONF_SIP_BIND": f"{self.sip_host}:{self.sip_port}",
            # Other programs may use ports of this range: Asterisk then takes the next free one.
            "ARI_CONF_RTP_PORTS": f"{first_rtp_port}-{first_rtp_port + RTP_PORTS}",
            "ARI_CONF_RTP_TIMEOUT": str(self.rtp_timeout),
            "ARI_CONF_MAX_CALLS": str(self.max_calls),
            "ARI_CONF_ACCOUNT": self.account,
            "ARI_CONF_TRUST_CALLERS": "yes" if self.trust_callers else "no",
            # Every program that reaches the SIP address may call.
            "ARI_CONF_ANONYMOUS": "yes",
            "ARI_CONF_RUN_FOLDER": str(self.folder),
        } | {f"ARI_CONF_{name}": value for name, value in self.more.items()}
        command = [sys.executable, _script("configure"), "--force", str(self.folder / "etc")]
        env = environment_without_settings() | environment
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        if done.returncode:
            raise SetupFailed(done.stderr.strip())
        # [options] is the last section of the file. Asterisk's default entity ID comes from the network card, so all
        # Asterisks of this machine would have the same one.
        with (self.folder / "etc" / "asterisk.conf").open("a") as options:
            options.write(f"entityid = {self.entity_id}\n")

    def _is_ready(self) -> bool:
        try:
            self.ask("GET", "/asterisk/modules/chan_pjsip.so")
        except OSError:
            return False
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
            phone.settimeout(0.5)
            phone.connect((self.sip_host, self.sip_port))
            port = phone.getsockname()[1]
            try:
                phone.send(_options(self.sip_host, self.sip_port, port))
                return phone.recv(4096).startswith(b"SIP/2.0 200")
            except OSError:
                return False

    def _log_tail(self) -> str:
        for path in (self.folder / "log" / "output.log", self.log_file):
            if path.exists() and (text := path.read_text(errors="replace").strip()):
                return f"the end of {path}: " + " | ".join(text.splitlines()[-3:])
        return "its log is empty"


@contextmanager
def running(asterisk: LocalAsterisk) -> Iterator[LocalAsterisk]:
    try:
        asterisk.start()
        yield asterisk
    finally:
        asterisk.stop()


def _options(host: str, sip_port: int, port: int) -> bytes:
    """Return a SIP OPTIONS request (RFC 3261 §11). Asterisk responds 200 once endpoint and dialplan are loaded."""
    lines = (
        f"OPTIONS sip:ready@{host}:{sip_port} SIP/2.0",
        f"Via: SIP/2.0/UDP {host}:{port};branch=z9hG4bK{secrets.token_hex(8)};rport",
        f"From: <sip:ready@{host}>;tag={secrets.token_hex(4)}",
        f"To: <sip:ready@{host}:{sip_port}>",
        f"Call-ID: {secrets.token_hex(8)}",
        "CSeq: 1 OPTIONS",
        "Max-Forwards: 70",
        "Content-Length: 0",
        "",
        "",
    )
    return "\r\n".join(lines).encode()


def _is_sudo_usable() -> bool:
    try:
        return subprocess.run([*SUDO, "true"], capture_output=True).returncode == 0
    except OSError:
        return False


@cache
def _can_create_namespaces() -> bool:
    try:
        command = ["unshare", "--user", "--map-root-user", "--mount", "true"]
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def _is_installed(program: str) -> bool:
    return shutil.which(program) is not None


def _script(name: str) -> str:
    return str(bundled_folder("asterisk") / name)
