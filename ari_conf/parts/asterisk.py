"""An Asterisk of our own, for `ari-conf up` and for the tests: asterisk/get has it, asterisk/configure sets it up."""

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
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from ari_conf.errors import SetupFailed
from ari_conf.parts.processes import READY_S, free_port

SCRIPTS = Path(__file__).parents[2] / "asterisk"
DEFAULT_ROOT = Path(__file__).parents[2] / ".local" / "asterisk"
OLDEST = 20
RTP_PORTS = 4000
SUDO = ("sudo", "-n")
ENDS_WITH_ITS_INPUT = """
exec 3<&0
"$@" </dev/null & child=$!
(read -r _ <&3; kill "$child") & reader=$!
wait "$child"; code=$?
kill "$reader" 2>/dev/null
exit "$code"
"""


def present(root: Path = DEFAULT_ROOT) -> str:
    """Which Asterisk is here, as asterisk/get says it: "native" or "root FOLDER". Gets none: raises SetupFailed."""
    if (root / ".complete").exists():
        return f"root {root}"
    version = subprocess.run(["asterisk", "-V"], capture_output=True, text=True).stdout if _has("asterisk") else ""
    number = version.removeprefix("Asterisk ").partition(".")[0]
    if number.isdigit() and int(number) >= OLDEST:
        return "native"
    raise SetupFailed(
        f"no Asterisk {OLDEST} or newer: there is none on the PATH and none in {root}; run asterisk/get {root}"
    )


def get(root: Path = DEFAULT_ROOT) -> str:
    """As `present`, but gets one where there is none (about a minute). The progress goes to stderr."""
    found = subprocess.run([_script("get"), str(root)], stdout=subprocess.PIPE, text=True)
    if found.returncode:
        raise SetupFailed("asterisk/get could not get an Asterisk onto this machine; see above")
    return found.stdout.strip()


@dataclass
class EmbeddedAsterisk:
    """All that it writes lies in `folder`; ARI listens on loopback only. Any port not given is a free one."""

    folder: Path
    where: str
    """What `present` or `get` said."""
    account: str = "demo"
    """For calls whose dialplan says no other."""
    app: str = "ari_conf"
    user: str = "ari_conf"
    password: str = field(default_factory=secrets.token_hex, repr=False)
    outbound: bool = False
    """Asterisk opens the events' WebSocket, to `websocket_port`; else the application does."""
    trust_callers: bool = True
    rtp_timeout: int = 55
    """Seconds without a packet after which a caller has vanished."""
    max_calls: int = 1000
    host: str = "127.0.0.1"
    sip_host: str = "127.0.0.1"
    """Where phones call, and send their sound to."""
    sip_port: int = 0
    http_port: int = 0
    websocket_port: int = 0
    more: dict[str, str] = field(default_factory=dict)
    """Further settings of asterisk/configure, without ARI_CONF_."""
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
        """The same for each Asterisk in this folder: what is kept in Redis is found again under it."""
        digest = hashlib.sha256(f"{socket.gethostname()} {self.folder}".encode()).hexdigest()
        return ":".join(("02", *(digest[i : i + 2] for i in range(0, 10, 2))))

    @property
    def log_file(self) -> Path:
        return self.folder / "log" / "asterisk.log"

    @property
    def recordings(self) -> Path:
        return self.folder / "spool" / "recording"

    def start(self, patience: float = READY_S) -> None:
        """Returns once it takes requests and calls. Raises SetupFailed, with the end of its log, if it never does."""
        if self.by_sudo and not _sudo_works():
            raise SetupFailed(
                "Asterisk needs root here: this kernel lets users make no namespaces, and sudo wants a password or is "
                "not there. Run `sudo -v` in this terminal before, or install an Asterisk of 20 or newer: it needs none"
            )
        self._configure()
        with (self.folder / "log" / "output.log").open("ab") as output:
            self.process = subprocess.Popen(
                self._kept("asterisk", "-f", "-C", str(self.folder / "etc" / "asterisk.conf")),
                stdin=subprocess.PIPE if self.by_sudo else subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C is for us; we end it in our own order. In a session of its own sudo would ask for the password
                # again.
                start_new_session=not self.by_sudo,
                process_group=0 if self.by_sudo else None,
            )
        deadline = time.monotonic() + patience
        while not self._ready():
            if self.process.poll() is not None:
                raise SetupFailed(f"Asterisk ended as it was started; {self._last_words()}")
            if time.monotonic() > deadline:
                self.stop()
                raise SetupFailed(f"Asterisk was not ready after {patience:g} s; {self._last_words()}")
            time.sleep(0.05)

    def stop(self, patience: float = 5.0) -> None:
        """Ends it, calls and all."""
        if self.process is None or self.process.poll() is not None:
            return
        if self.process.stdin is not None:
            self.process.stdin.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            # Where Asterisk runs as root, and we don't, we may not signal it: it ends with its input.
            with suppress(PermissionError):
                self.process.send_signal(number)
            try:
                self.process.wait(patience)
                return
            except subprocess.TimeoutExpired:
                continue

    def command(self, *words: str) -> list[str]:
        """How a program of that system (asterisk, sipp) is run so that it sees `folder` under the same path."""
        # Asterisk must not outlive us, whichever way we end.
        bound = ["setpriv", "--pdeathsig", "TERM"] if _has("setpriv") else []
        if self.where == "native":
            return [*bound, *words]
        root = self.where.removeprefix("root ")
        sudo = SUDO if self.by_sudo else ()
        return [*sudo, *bound, _script("run-in"), root, str(self.folder), *words]

    def _kept(self, *words: str) -> list[str]:
        """As `command`, of a program that goes on; by sudo it ends with its input, since later sudo may ask again."""
        command = self.command(*words)
        if not self.by_sudo:
            return command
        return [*SUDO, "bash", "-c", ENDS_WITH_ITS_INPUT, "asterisk", *command[len(SUDO) :]]

    @property
    def by_sudo(self) -> bool:
        return self.where != "native" and os.geteuid() != 0 and not _may_make_namespaces()

    def version(self) -> str:
        """What `asterisk -V` prints."""
        return subprocess.run(self.command("asterisk", "-V"), capture_output=True, text=True).stdout.strip()

    def ask(self, method: str, path: str) -> object:
        """One request of ARI's. Raises OSError (urllib's HTTPError is one)."""
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
            # A range that others use too is no harm: Asterisk takes the next port that is free.
            "ARI_CONF_RTP_PORTS": f"{first_rtp_port}-{first_rtp_port + RTP_PORTS}",
            "ARI_CONF_RTP_TIMEOUT": str(self.rtp_timeout),
            "ARI_CONF_MAX_CALLS": str(self.max_calls),
            "ARI_CONF_ACCOUNT": self.account,
            "ARI_CONF_TRUST_CALLERS": "yes" if self.trust_callers else "no",
            # Whoever reaches this machine's loopback address.
            "ARI_CONF_ANONYMOUS": "yes",
            "ARI_CONF_RUN_FOLDER": str(self.folder),
        } | {f"ARI_CONF_{name}": value for name, value in self.more.items()}
        # Only these: what is set for the operator's own Asterisk is not meant for this one.
        inherited = {name: text for name, text in os.environ.items() if not name.startswith("ARI_CONF_")}
        command = [_script("configure"), "--force", str(self.folder / "etc")]
        done = subprocess.run(command, env=inherited | environment, capture_output=True, text=True)
        if done.returncode:
            raise SetupFailed(done.stderr.strip())
        # Its options are the last section there. Of the network card, which this machine's other Asterisks have, too.
        with (self.folder / "etc" / "asterisk.conf").open("a") as options:
            options.write(f"entityid = {self.entity_id}\n")

    def _ready(self) -> bool:
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

    def _last_words(self) -> str:
        for path in (self.folder / "log" / "output.log", self.log_file):
            if path.exists() and (text := path.read_text(errors="replace").strip()):
                return f"the end of {path}: " + " | ".join(text.splitlines()[-3:])
        return "it said nothing"


@contextmanager
def running(asterisk: EmbeddedAsterisk) -> Iterator[EmbeddedAsterisk]:
    try:
        asterisk.start()
        yield asterisk
    finally:
        asterisk.stop()


def _options(host: str, sip_port: int, port: int) -> bytes:
    """SIP's question whether a call would be taken (RFC 3261, 11): 200 once the endpoint and the dialplan are there."""
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


def _sudo_works() -> bool:
    try:
        return subprocess.run([*SUDO, "true"], capture_output=True).returncode == 0
    except OSError:
        return False


@cache
def _may_make_namespaces() -> bool:
    try:
        command = ["unshare", "--user", "--map-root-user", "--mount", "true"]
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def _has(program: str) -> bool:
    return shutil.which(program) is not None


def _script(name: str) -> str:
    path = SCRIPTS / name
    if not path.exists():
        raise SetupFailed(
            f"there is no {path}: an Asterisk of its own needs the project's folder, not only the package"
        )
    return str(path)
