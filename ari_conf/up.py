"""The whole system on one machine: every part that is not configured elsewhere, as children of this process.

`ari-conf up`, the demo and the integration tests start the same `System`:

    async with System(folder, allowed_loopback) as system:
        system.sip_address, system.settings.redis_url, system.log("serve")
        await system.kill("serve"); await system.start("serve")
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import secrets
import shlex
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from redis import RedisError

from ari_conf import accounts
from ari_conf.core import elements
from ari_conf.errors import SetupFailed
from ari_conf.parts import asterisk, processes, redis, s3
from ari_conf.parts.processes import Process
from ari_conf.redis_client import connect_in_threads
from ari_conf.settings import UP_FOLDER, VALUES, Settings, address, from_environment

PROJECT = Path(__file__).parents[1]

PARTS = ("redis", "s3", "asterisk", "worker", "serve", "web")
"""In the order in which they need each other; they are stopped in the reverse one."""

CONFIGURED_BY = {"redis": "ARI_CONF_REDIS_URL", "s3": "ARI_CONF_S3_ENDPOINT", "asterisk": "ARI_CONF_ARI_URL"}
"""With this variable set, the part runs elsewhere, and none is started here."""

PREFIX = "ARI_CONF_"
DEMO = "demo"
"""The account that is made where there is none."""


def of_this_environment() -> dict[str, str]:
    """What is configured. UP_FOLDER leads to a system that runs already: it says nothing of one to be started."""
    return {name: value for name, value in os.environ.items() if name.startswith(PREFIX) and name != UP_FOLDER}


LOOPBACK = ("127.0.0.0/8", "::1/128")


class System:
    def __init__(
        self,
        folder: Path,
        configured: Mapping[str, str] | None = None,
        parts: tuple[str, ...] = PARTS,
        *,
        usual_ports: bool = False,
        answer_url: str | None = None,
        listen: str = "127.0.0.1",
    ) -> None:
        """`folder` takes all that the parts write, and keeps it for the next time.

        `configured` are the ARI_CONF_ variables that are given; this process' own are not looked at.
        `usual_ports`: those that the settings name, where they are free; else any, so that systems run side by side.
        `answer_url`: becomes the account's; requests to its host are allowed, wherever it is. `listen`: the address of
        this machine on which phones and browsers reach it. Raises SetupFailed.
        """
        self._answer_url = answer_url
        self._listen = _own_address(listen)
        self.folder = folder.resolve()
        self._configured = dict(configured or {})
        self.parts = tuple(part for part in parts if CONFIGURED_BY.get(part) not in self._configured)
        self._usual_ports = usual_ports
        self._running: dict[str, Process] = {}
        self._asterisk = self._own_asterisk() if "asterisk" in self.parts else None
        self._lock: IO[str] | None = None
        self.account = ""
        """The account that calls are for: demo, or else the first there is; known once it has started."""
        self.values = self._defaults() | self._configured
        """The ARI_CONF_ variables that the parts get."""
        if answer_url is not None:
            self._allow(answer_url)
        self.settings: Settings = from_environment(self.values)

    async def __aenter__(self) -> System:
        self._lock_folder()
        try:
            self._write_environment()
            await self._start_all()
        except BaseException:
            await self.stop_all()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop_all()

    @property
    def sip_address(self) -> str:
        """host:port of Asterisk's SIP, UDP."""
        if self._asterisk is None:
            raise SetupFailed("this system has no Asterisk of its own: ARI_CONF_ARI_URL names another")
        return f"{self._asterisk.sip_host}:{self._asterisk.sip_port}"

    @property
    def is_local(self) -> bool:
        """Only who is on this machine reaches it."""
        return self._listen.startswith("127.")

    def log(self, part: str) -> Path:
        if part == "asterisk" and self._asterisk:
            return self._asterisk.log_file
        return self.folder / "logs" / f"{part}.log"

    def process(self, part: str) -> Process:
        return self._running[part]

    def ended(self) -> list[Process]:
        """Those that were started and run no more."""
        return [process for process in self._running.values() if not process.running]

    async def start(self, part: str) -> Process:
        """Starts it, and waits until it is ready. Raises SetupFailed."""
        self._running[part] = process = await self._starters()[part]()
        return process

    async def stop(self, part: str) -> None:
        process = self._running.pop(part)
        if part == "asterisk" and self._asterisk:
            await asyncio.to_thread(self._asterisk.stop)
        else:
            await processes.stop(process)

    async def kill(self, part: str) -> None:
        """As a crash would end it."""
        processes.kill(self._running.pop(part))

    async def stop_all(self) -> None:
        for part in reversed(PARTS):
            if part in self._running:
                await self.stop(part)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def environment_file(self) -> Path:
        """For a shell: leads the other commands to this system, and the shell to the commands."""
        return self.folder / "environment"

    def _write_environment(self) -> None:
        # They hold passwords.
        values = self.folder / VALUES
        values.touch(mode=0o600)
        values.write_text(json.dumps(self.values, indent=1))
        programs = shlex.quote(str(Path(sys.executable).parent))
        self.environment_file.write_text(
            f"export {UP_FOLDER}={shlex.quote(str(self.folder))}\nexport PATH={programs}:$PATH\n"
        )

    def _lock_folder(self) -> None:
        # It holds tokens, recordings, and logs.
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._close_to_others()
            self._lock = (self.folder / "lock").open("w")
        except OSError as error:
            raise SetupFailed(
                f"{self.folder} can't be used ({error.strerror}): give a folder that you may write, by --folder"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SetupFailed(f"another system runs in {self.folder}: stop it, or give another --folder") from None

    def _close_to_others(self) -> None:
        """Not any folder that is named: whatever else is in it may be meant for others."""
        if not self.folder.stat().st_mode & 0o077:
            return
        if any(self.folder.iterdir()) and not (self.folder / "lock").exists():
            raise SetupFailed(
                f"{self.folder} holds other files, and other users can read it: give a folder that is for this alone, "
                "by --folder; it is made if it isn't there"
            )
        self.folder.chmod(0o700)

    async def _start_all(self) -> None:
        async def those(*parts: str) -> None:
            async with asyncio.TaskGroup() as group:
                for part in parts:
                    if part in self.parts:
                        group.create_task(self.start(part))

        async def redis_and_its_users() -> None:
            await those("redis")
            # Asterisk is among them for the account's sake, which its dialplan names.
            record = await asyncio.to_thread(_an_account, self.settings, self._answer_url)
            self.account = record.auth_id
            await asyncio.to_thread(self._allow_kept, record.answer_url)
            await those("asterisk", "worker", "serve", "web")

        if self._asterisk is not None:
            await asyncio.to_thread(self._get_asterisk, self._asterisk)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(those("s3"))
                group.create_task(redis_and_its_users())
        except* SetupFailed as failed:
            raise _first(failed) from None

    def _get_asterisk(self, own: asterisk.EmbeddedAsterisk) -> None:
        own.where = own.where or _an_asterisk()
        own.folder.mkdir(parents=True, exist_ok=True)
        own.outbound = self.settings.ari_socket == "outbound"

    def _starters(self) -> dict[str, Callable[[], Awaitable[Process]]]:
        python = [sys.executable, "-m"]
        has_asterisk = "asterisk" in self.parts
        return {
            "redis": self._start_redis,
            "s3": self._start_s3,
            "asterisk": self._start_asterisk,
            "worker": partial(self._start_ours, "worker", [*python, "celery", "-A", "tasks", "worker"], r"ready\."),
            "serve": partial(
                self._start_ours, "serve", [*python, "ari_conf", "serve"], "asterisk connected" if has_asterisk else ""
            ),
            "web": partial(self._start_ours, "web", [*python, "ari_conf", "web"], "running on"),
        }

    async def _start_redis(self) -> Process:
        url = urlsplit(self.values["ARI_CONF_REDIS_URL"])
        assert url.port is not None
        return await redis.start(self.folder / "redis", url.port, url.password or "", self.log("redis"))

    async def _start_s3(self) -> Process:
        settings = self.settings
        assert settings.s3_endpoint and settings.s3_access_key and settings.s3_secret_key, "made by _defaults"
        _, port = address(settings.s3_endpoint.removeprefix("http://"))
        key, secret = settings.s3_access_key.get_secret_value(), settings.s3_secret_key.get_secret_value()
        return await s3.start(self.folder / "s3", port, settings.s3_bucket, key, secret, self.log("s3"))

    async def _start_asterisk(self) -> Process:
        own = self._asterisk
        assert own is not None, "made with the settings"
        own.account = self.account
        # In a thread, since it waits without giving way; and one can't be stopped: where another part fails meanwhile,
        # it starts Asterisk all the same.
        starting = asyncio.ensure_future(asyncio.to_thread(own.start))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            await asyncio.wait([starting])
            await asyncio.to_thread(own.stop)
            raise
        assert own.process is not None, "start returned"
        return Process("asterisk", own.log_file, own.process)

    async def _start_ours(self, name: str, command: list[str], pattern: str) -> Process:
        others = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        return await processes.start(
            name, command, self.log(name), ready=processes.logs(pattern), environment=others | self.values
        )

    def _defaults(self) -> dict[str, str]:
        """What the parts are told where nothing is configured."""
        values = {
            "LOG_FORMAT": "json",
            "WEB_LISTEN": f"{self._listen}:{self._port(8080, self._listen)}",
            "METRICS_LISTEN": f"127.0.0.1:{self._port(8091)}",
            "DOCUMENTS": str(PROJECT / "documents"),
            "SOUNDS_FOLDER": str(self.folder / "asterisk" / "cache"),
        }
        values["PUBLIC_URL"] = f"http://{values['WEB_LISTEN']}"
        if "redis" in self.parts:
            values["REDIS_URL"] = f"redis://:{secrets.token_hex(16)}@127.0.0.1:{processes.free_port()}/0"
        if "s3" in self.parts:
            values["S3_ENDPOINT"] = f"http://127.0.0.1:{processes.free_port()}"
            values["S3_ACCESS_KEY"], values["S3_SECRET_KEY"] = "ari_conf", secrets.token_urlsafe(24)
        if own := self._asterisk:
            values |= {
                "ARI_URL": own.url,
                "ARI_USER": own.user,
                "ARI_PASSWORD": own.password,
                "ARI_APP": own.app,
                "ARI_LISTEN": f"{own.host}:{own.websocket_port}",
                "RECORDING_FOLDER": str(own.recordings),
            }
        return {PREFIX + name: value for name, value in values.items()}

    def _own_asterisk(self) -> asterisk.EmbeddedAsterisk:
        own = asterisk.EmbeddedAsterisk(self.folder / "asterisk", "", sip_host=self._listen)
        # Who comes from elsewhere must not choose whose documents are run.
        own.trust_callers = self._listen.startswith("127.")
        if self._usual_ports and processes.is_free(5060, socket.SOCK_DGRAM, self._listen):
            own.sip_port = 5060
        return own

    def _port(self, usual: int, host: str = "127.0.0.1") -> int:
        return usual if self._usual_ports and processes.is_free(usual, host=host) else processes.free_port(host=host)

    def _allow_kept(self, url: str | None) -> None:
        """As when it was given: the account has kept it from an earlier start. Not in another Redis, where anybody may
        have set it."""
        if not url or self._answer_url is not None or "redis" not in self.parts:
            return
        with suppress(SetupFailed):  # calls say that it can't be reached; the rest can be used
            self._allow(url)
            self.settings = from_environment(self.values)
            self._write_environment()

    def _allow(self, url: str) -> None:
        """Requests to the host of this URL, although it may be this machine or one of the same network."""
        name, host = PREFIX + "ALLOWED_NETWORKS", _host(url)
        try:
            found = {str(place[4][0]) for place in socket.getaddrinfo(host, None)}
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no name"
            raise SetupFailed(f"the host of the answer URL, {host}, can't be found: {reason}") from None
        more = [one for one in sorted(found) if not ip_address(one).is_global]
        networks = {network for one in more for network in (LOOPBACK if ip_address(one).is_loopback else (one,))}
        self.values[name] = ",".join(filter(None, [self.values.get(name, ""), *sorted(networks)]))


def _host(url: str) -> str:
    with suppress(ValueError):
        if allowed := elements.url(url):
            return urlsplit(allowed).hostname or ""
    raise SetupFailed("that is no answer URL: give one of http or https, such as http://127.0.0.1:5000/answer")


def _own_address(host: str) -> str:
    try:
        if ip_address(host).version == 4 and not ip_address(host).is_unspecified:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trying:
                trying.bind((host, 0))
            return host
    except (OSError, ValueError):
        pass
    raise SetupFailed(
        f"{host} is no IPv4 address of this machine: give the one by which phones reach it (`ip -4 -brief address` "
        "lists them); it is told to them as where their sound goes, so 0.0.0.0 can't be"
    )


def _an_account(settings: Settings, answer_url: str | None = None) -> accounts.AccountRecord:
    """The one that calls are for which name no other."""
    client = connect_in_threads(settings.redis_url.get_secret_value(), socket_timeout=5.0)
    try:
        known = {record.auth_id: record for record in accounts.list_all(client)}
        if not known:
            known[DEMO] = accounts.add(client, int(time.time() * 1000), auth_id=DEMO)
        account = known.get(DEMO) or next(iter(known.values()))
        return account if answer_url is None else accounts.update(client, account.auth_id, answer_url=answer_url)
    except (RedisError, OSError) as error:
        raise SetupFailed(f"Redis can't be used ({error}): correct ARI_CONF_REDIS_URL") from None
    finally:
        client.close()


def _an_asterisk() -> str:
    try:
        return asterisk.present()
    except SetupFailed:
        return asterisk.get()


def _first(failed: BaseExceptionGroup[SetupFailed]) -> SetupFailed:
    """One of those that failed at once: the others are mostly its consequence."""
    error: BaseException = failed
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, SetupFailed)
    return error
