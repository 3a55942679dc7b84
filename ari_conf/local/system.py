"""Local system: all components that are not configured elsewhere, as child processes on one machine.

`ari-conf up`, the demo and the integration tests start the same `LocalSystem`:

    async with LocalSystem(folder, configured) as system:
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
from urllib.parse import quote, urlsplit

from redis import RedisError

from ari_conf.common import setting_sources, state_version
from ari_conf.common.installation import WORKER_COMMAND, bundled_folder
from ari_conf.common.redis_client import connect_in_threads
from ari_conf.common.setting_sources import CONFIG, VARIABLE_PREFIX
from ari_conf.core import elements
from ari_conf.errors import SetupFailed, StateVersionRefused
from ari_conf.local import asterisk, log_files, processes, redis, s3
from ari_conf.local.processes import Process
from ari_conf.settings import UP_FOLDER, VALUES, Settings, from_environment, given, parse_listen_address
from ari_conf.store import accounts

COMPONENTS = ("redis", "s3", "asterisk", "worker", "serve", "web")
"""Components in the order of their dependencies; they are stopped in the reverse order."""

CONFIGURED_BY = {"redis": "ARI_CONF_REDIS_URL", "s3": "ARI_CONF_S3_ENDPOINT", "asterisk": "ARI_CONF_ARI_URL"}
"""Component -> variable. If the variable is set, the component runs elsewhere and is not started."""

DEMO = "demo"
"""Auth ID of the account that is created if no account exists."""


def settings_from_environment() -> dict[str, str]:
    """Return the settings that are given to this process, as variables, without UP_FOLDER: that system already runs.

    The default file is meant for another installation, and is not read. Raises SettingsError.
    """
    found = given(os.environ)
    files = {CONFIG, UP_FOLDER} | {f"{VARIABLE_PREFIX}{name.upper()}_FILE" for name in found}
    others = {
        name: value for name, value in os.environ.items() if name.startswith(VARIABLE_PREFIX) and name not in files
    }
    return others | {VARIABLE_PREFIX + name.upper(): setting_sources.as_text(one.value) for name, one in found.items()}


LOOPBACK = ("127.0.0.0/8", "::1/128")


class LocalSystem:
    def __init__(
        self,
        folder: Path,
        configured: Mapping[str, str] | None = None,
        components: tuple[str, ...] = COMPONENTS,
        *,
        usual_ports: bool = False,
        answer_url: str | None = None,
        listen: str = "127.0.0.1",
    ) -> None:
        """Prepare a system; `folder` keeps all that its components write, for the next start.

        `configured` has the ARI_CONF_ variables; this process's own, and its files of settings, are ignored.
        `usual_ports`: use the default ports that are free, otherwise any ports, so that several systems can run
        concurrently. `answer_url` becomes the account's, and requests to its host are allowed, wherever it is. `listen`
        is the address of this machine on which phones and browsers reach it. Raises SetupFailed.
        """
        self._answer_url = answer_url
        self._listen = _own_address(listen)
        self.folder = folder.resolve()
        self._configured = dict(configured or {})
        self.components = tuple(
            component for component in components if CONFIGURED_BY.get(component) not in self._configured
        )
        self._usual_ports = usual_ports
        self._running: dict[str, Process] = {}
        self._asterisk = self._own_asterisk() if "asterisk" in self.components else None
        self._lock: IO[str] | None = None
        self.account = ""
        """Auth ID of the account of calls: demo, or else the first account; empty until the system has started."""
        self.values = {CONFIG: ""} | self._defaults() | self._configured
        """The ARI_CONF_ variables of the components."""
        if answer_url is not None:
            self._allow_host_of(answer_url)
        self.settings: Settings = from_environment(self.values)

    async def __aenter__(self) -> LocalSystem:
        self._lock_folder()
        self.limit_logs()
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
        """Return host:port of Asterisk's SIP over UDP. Raises SetupFailed if Asterisk runs elsewhere."""
        if self._asterisk is None:
            raise SetupFailed("the SIP address is unknown: Asterisk is not local, since ARI_CONF_ARI_URL is set")
        return f"{self._asterisk.sip_host}:{self._asterisk.sip_port}"

    @property
    def is_local(self) -> bool:
        """Return whether only this machine reaches the system."""
        return self._listen.startswith("127.")

    def log(self, component: str) -> Path:
        if component == "asterisk" and self._asterisk:
            return self._asterisk.log_file
        return self.folder / "logs" / f"{component}.log"

    def limit_logs(self) -> None:
        """Limit the size of all logs. They would otherwise grow as long as the system is used."""
        log_files.limit_all({self.log(component).parent for component in COMPONENTS}, log_files.MAX_BYTES)

    def process(self, component: str) -> Process:
        return self._running[component]

    def exited_processes(self) -> list[Process]:
        """Return the processes that were started and have ended."""
        return [process for process in self._running.values() if not process.is_running]

    async def start(self, component: str) -> Process:
        """Start a component and wait until it is ready. Raises SetupFailed."""
        self._running[component] = process = await self._start_functions()[component]()
        return process

    async def stop(self, component: str) -> None:
        process = self._running.pop(component)
        if component == "asterisk" and self._asterisk:
            await asyncio.to_thread(self._asterisk.stop)
        else:
            await processes.stop(process)

    async def kill(self, component: str) -> None:
        """Kill a component with SIGKILL, as in a crash."""
        processes.kill(self._running.pop(component))

    async def stop_all(self) -> None:
        for component in reversed(COMPONENTS):
            if component in self._running:
                await self.stop(component)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def environment_file(self) -> Path:
        """Return the file for a shell: it directs other commands to this system, and adds them to the PATH."""
        return self.folder / "environment"

    def _write_environment(self) -> None:
        # The values contain passwords.
        values = self.folder / VALUES
        values.touch(mode=0o600)
        values.write_text(json.dumps(self.values, indent=1))
        programs = shlex.quote(str(Path(sys.executable).parent))
        self.environment_file.write_text(
            f"export {UP_FOLDER}={shlex.quote(str(self.folder))}\nexport PATH={programs}:$PATH\n"
        )

    def _lock_folder(self) -> None:
        # The folder contains tokens, recordings and logs.
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._restrict_access()
            self._lock = (self.folder / "lock").open("w")
        except OSError as error:
            raise SetupFailed(
                f"{self.folder} could not be used ({error.strerror}): choose a folder that you can write to, by "
                "`--folder`"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SetupFailed(
                f"another system is running in {self.folder}: stop it, or choose another folder by `--folder`"
            ) from None

    def _restrict_access(self) -> None:
        """Close the folder to other users. Raises SetupFailed if it has other files, which may be meant for them."""
        if not self.folder.stat().st_mode & 0o077:
            return
        if any(self.folder.iterdir()) and not (self.folder / "lock").exists():
            raise SetupFailed(
                f"{self.folder} contains other files, and other users can read it: choose a folder for this system "
                "alone, by `--folder`; it is created if it does not exist"
            )
        self.folder.chmod(0o700)

    async def _start_all(self) -> None:
        async def start_components(*components: str) -> None:
            async with asyncio.TaskGroup() as group:
                for component in components:
                    if component in self.components:
                        group.create_task(self.start(component))

        async def start_redis_and_its_users() -> None:
            await start_components("redis")
            # Asterisk starts after the account exists, because its dialplan names the account.
            record = await asyncio.to_thread(_get_or_create_account, self.settings, self._answer_url)
            self.account = record.auth_id
            await asyncio.to_thread(self._allow_saved_answer_url, record.answer_url)
            await start_components("asterisk", "worker", "serve", "web")

        if self._asterisk is not None:
            await asyncio.to_thread(self._prepare_asterisk, self._asterisk)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(start_components("s3"))
                group.create_task(start_redis_and_its_users())
        except* SetupFailed as failed:
            raise _first_failure(failed) from None

    def _prepare_asterisk(self, own: asterisk.LocalAsterisk) -> None:
        own.where = own.where or _find_or_install_asterisk()
        own.folder.mkdir(parents=True, exist_ok=True)
        own.outbound = self.settings.ari_socket == "outbound"

    def _start_functions(self) -> dict[str, Callable[[], Awaitable[Process]]]:
        # "-P": don't import from the working directory, which may contain modules of the same names.
        program = [sys.executable, "-P", "-m", "ari_conf"]
        has_asterisk = "asterisk" in self.components
        return {
            "redis": self._start_redis,
            "s3": self._start_s3,
            "asterisk": self._start_asterisk,
            "worker": partial(self._start_own_process, "worker", [*WORKER_COMMAND], r"ready\."),
            "serve": partial(
                self._start_own_process,
                "serve",
                [*program, "serve"],
                "asterisk connected" if has_asterisk else "",
            ),
            "web": partial(self._start_own_process, "web", [*program, "web"], "running on"),
        }

    async def _start_redis(self) -> Process:
        url = urlsplit(self.values["ARI_CONF_REDIS_URL"])
        assert url.port is not None
        return await redis.start(self.folder / "redis", url.port, url.password or "", self.log("redis"))

    async def _start_s3(self) -> Process:
        settings = self.settings
        assert settings.s3_endpoint and settings.s3_access_key and settings.s3_secret_key, "made by _defaults"
        _, port = parse_listen_address(settings.s3_endpoint.removeprefix("http://"))
        key, secret = settings.s3_access_key.get_secret_value(), settings.s3_secret_key.get_secret_value()
        return await s3.start(self.folder / "s3", port, settings.s3_bucket, key, secret, self.log("s3"))

    async def _start_asterisk(self) -> Process:
        own = self._asterisk
        assert own is not None, "made with the settings"
        own.account = self.account
        # In a thread, because `start` blocks. A thread can't be canceled: if another component fails in the meantime,
        # it still starts Asterisk, which must then be stopped.
        starting = asyncio.ensure_future(asyncio.to_thread(own.start))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            await asyncio.wait([starting])
            await asyncio.to_thread(own.stop)
            raise
        assert own.process is not None, "start returned"
        return Process("asterisk", own.log_file, own.process)

    async def _start_own_process(self, name: str, command: list[str], pattern: str) -> Process:
        environment = processes.environment_without_settings() | self.values
        return await processes.start(
            name, command, self.log(name), ready=processes.log_matches(pattern), environment=environment
        )

    def _defaults(self) -> dict[str, str]:
        """Return the default variables of the components."""
        values = {
            "LOG_FORMAT": "json",
            "WEB_LISTEN": f"{self._listen}:{self._port(8080, self._listen)}",
            "METRICS_LISTEN": f"127.0.0.1:{self._port(8091)}",
            "DOCUMENTS": str(bundled_folder("documents")),
            "SOUNDS_FOLDER": str(self.folder / "asterisk" / "cache"),
            "DATABASE_URL": f"sqlite:///{quote(str(self.folder))}/history.db",
        }
        values["PUBLIC_URL"] = f"http://{values['WEB_LISTEN']}"
        if "redis" in self.components:
            values["REDIS_URL"] = f"redis://:{secrets.token_hex(16)}@127.0.0.1:{processes.free_port()}/0"
        if "s3" in self.components:
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
        return {VARIABLE_PREFIX + name: value for name, value in values.items()}

    def _own_asterisk(self) -> asterisk.LocalAsterisk:
        own = asterisk.LocalAsterisk(self.folder / "asterisk", "", sip_host=self._listen)
        # Callers from other machines must not choose the account whose documents are run.
        own.trust_callers = self._listen.startswith("127.")
        if self._usual_ports and processes.is_free(5060, socket.SOCK_DGRAM, self._listen):
            own.sip_port = 5060
        return own

    def _port(self, usual: int, host: str = "127.0.0.1") -> int:
        return usual if self._usual_ports and processes.is_free(usual, host=host) else processes.free_port(host=host)

    def _allow_saved_answer_url(self, url: str | None) -> None:
        """Allow requests to an answer URL that the account has kept from an earlier start.

        Do nothing if a new URL was given, or if Redis runs elsewhere, where others may have set the URL.
        """
        if not url or self._answer_url is not None or "redis" not in self.components:
            return
        with suppress(SetupFailed):  # calls report that the URL is unreachable; everything else works
            self._allow_host_of(url)
            self.settings = from_environment(self.values)
            self._write_environment()

    def _allow_host_of(self, url: str) -> None:
        """Allow requests to the host of this URL, even if it is this machine or in a private network.

        Raises SetupFailed if the host can't be resolved.
        """
        name, host = VARIABLE_PREFIX + "ALLOWED_NETWORKS", _host(url)
        try:
            addresses = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not a valid name"
            raise SetupFailed(f"the host of the answer URL, {host}, could not be resolved: {reason}") from None
        private_addresses = [one for one in sorted(addresses) if not ip_address(one).is_global]
        networks = {
            network for one in private_addresses for network in (LOOPBACK if ip_address(one).is_loopback else (one,))
        }
        self.values[name] = ",".join(filter(None, [self.values.get(name, ""), *sorted(networks)]))


def _host(url: str) -> str:
    with suppress(ValueError):
        if allowed := elements.url(url):
            return urlsplit(allowed).hostname or ""
    raise SetupFailed(
        "the answer URL is not valid: expected an http or https URL, such as http://127.0.0.1:5000/answer"
    )


def _own_address(host: str) -> str:
    try:
        if ip_address(host).version == 4 and not ip_address(host).is_unspecified:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.bind((host, 0))
            return host
    except (OSError, ValueError):
        pass
    raise SetupFailed(
        f"{host} is not an IPv4 address of this machine: use the address by which phones reach it (`ip -4 -brief "
        "address` lists the addresses); phones send their audio to it, so 0.0.0.0 is not allowed"
    )


def _get_or_create_account(settings: Settings, answer_url: str | None = None) -> accounts.AccountRecord:
    """Return the account of calls for which the dialplan names no other: demo, or else the first.

    Create the account if none exists, and set its answer URL if one is given. Raises SetupFailed.
    """
    client = connect_in_threads(settings.redis_url.get_secret_value(), socket_timeout=5.0)
    try:
        state_version.check(client)
        known = {record.auth_id: record for record in accounts.list_all(client)}
        if not known:
            known[DEMO] = accounts.add(client, int(time.time() * 1000), auth_id=DEMO)
        account = known.get(DEMO) or next(iter(known.values()))
        return account if answer_url is None else accounts.update(client, account.auth_id, answer_url=answer_url)
    except (RedisError, OSError) as error:
        raise SetupFailed(f"Redis is unavailable ({error}): correct ARI_CONF_REDIS_URL") from None
    except StateVersionRefused as refused:
        raise SetupFailed(str(refused)) from None
    finally:
        client.close()


def _find_or_install_asterisk() -> str:
    try:
        return asterisk.find()
    except SetupFailed:
        return asterisk.install()


def _first_failure(failed: BaseExceptionGroup[SetupFailed]) -> SetupFailed:
    """Return the first of several concurrent failures; the others are mostly its consequences."""
    error: BaseException = failed
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, SetupFailed)
    return error
