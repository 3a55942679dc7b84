"""Command `ari-conf up`: prints the addresses of the started system, then its log until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from ari_conf.cli.terminal import console, say, say_with_head
from ari_conf.common.redis_client import connect_in_threads
from ari_conf.common.safe_text import visible
from ari_conf.errors import SetupFailed
from ari_conf.local import log_files
from ari_conf.local.system import LocalSystem, settings_from_environment
from ari_conf.observability.log_setup import line_formatter
from ari_conf.store import accounts

SHOWN_COMPONENTS = ("serve", "worker", "web")
"""Components whose logs are shown; the logs of the others would hide them."""

POLL_INTERVAL_S = 0.1
LIMIT_INTERVAL_S = 10.0
"""Seconds between two checks of the logs' sizes."""

EXAMPLE_HOST = "://example.com/"
"""Text in documents that are examples for your application: without one, their URLs do not respond."""


def run(folder: Path, answer_url: str | None = None, listen: str = "127.0.0.1") -> None:
    """Run the system until Ctrl-C or SIGTERM. Raises SetupFailed if a component can't be started or ends on its own."""
    configured = settings_from_environment()
    until_stopped(lambda: _run(LocalSystem(folder, configured, usual_ports=True, answer_url=answer_url, listen=listen)))


def until_stopped(work: Callable[[], Awaitable[None]]) -> None:
    """Run `work` until it ends, or until Ctrl-C or SIGTERM cancels it, which is not an error.

    Nor is a SetupFailed after that: the signal interrupted the start of a component.
    """

    async def cancellable() -> None:
        task, is_stopping = asyncio.ensure_future(work()), False

        def stop() -> None:
            nonlocal is_stopping
            is_stopping = True
            task.cancel()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        await asyncio.wait([task])
        if not task.cancelled() and not (is_stopping and isinstance(task.exception(), SetupFailed)):
            task.result()

    asyncio.run(cancellable())


async def _run(system: LocalSystem) -> None:
    say(f"Starting {', '.join(system.components)} …", style="dim")
    async with system:
        _introduce(system)
        try:
            await _show_logs(system)
        finally:
            say("\nStopping …", style="dim")


def _introduce(system: LocalSystem) -> None:
    settings = system.settings
    say("")
    if "asterisk" in system.components:
        _introduce_numbers(system)
    say_with_head("Account    ", f"{system.account}, {_describe_token(system)}")
    say_with_head("Dashboard  ", f"{settings.public_url}/  (log in with the account and its token)")
    say_with_head("Recordings ", f"{settings.s3_endpoint or 'AWS'}, bucket {settings.s3_bucket}")
    say_with_head("Logs       ", f"{system.log('serve').parent} and {system.log('asterisk')}")
    say_with_head("Commands   ", f"in another terminal, after  . {system.environment_file}")
    say("             ari-conf doctor, account set, problems ACCOUNT, lanes …")
    say_with_head("Stop       ", "Ctrl-C")
    say("")


def _introduce_numbers(system: LocalSystem) -> None:
    where = "on this machine" if system.is_local else "that reaches it, without a password"
    say_with_head("Call       ", f"from any SIP phone {where}, for the account {system.account}:")
    for path in sorted(system.settings.documents.glob("*.xml")):
        if EXAMPLE_HOST not in path.read_text(errors="replace"):
            say(f"             sip:{path.stem}@{system.sip_address}", style="cyan")
    say(f"           each a document in {system.settings.documents}", soft_wrap=True)
    say(f"             sip:15550100@{system.sip_address}", style="cyan")
    with connect_in_threads(system.settings.redis_url.get_secret_value(), socket_timeout=5.0) as client:
        record = accounts.get(client, system.account)
    if record is not None and record.answer_url:
        say(f"           or any other number: answered by {record.answer_url}", soft_wrap=True)
    else:
        say(
            f"           or any other number, once {system.account} has an answer URL: stop this, and start it with\n"
            '           `make up UP="--answer-url URL"`, or `ari-conf up --answer-url URL`',
            soft_wrap=True,
        )
    if system.is_local:
        say("             sip:ACCOUNT*15550100@…  the same for another account", style="dim")
    else:
        say(
            "           Anyone in this network can call. Do not use an address that is reachable from the Internet.",
            soft_wrap=True,
        )


def _describe_token(system: LocalSystem) -> str:
    """Return a text with the token; with the command that prints it if the output, not a terminal, may be kept."""
    show = f"ari-conf account show {system.account} --token"
    if not console.is_terminal:
        return f"its token: {show}"
    with connect_in_threads(system.settings.redis_url.get_secret_value(), socket_timeout=5.0) as client:
        record = accounts.get(client, system.account)
    return f"its token: {record.token}" if record is not None else "which was removed"


async def _show_logs(system: LocalSystem) -> None:
    format_line = line_formatter(console.is_terminal) if console.is_terminal else visible
    offsets = {
        component: system.process(component).log_start
        for component in SHOWN_COMPONENTS
        if component in system.components
    }
    limited_at = time.monotonic()
    while True:
        for component, offset in offsets.items():
            offsets[component] = _show_new_lines(system.log(component), offset, component, format_line)
        if time.monotonic() - limited_at > LIMIT_INTERVAL_S:
            await asyncio.to_thread(system.limit_logs)
            limited_at = time.monotonic()
        if ended := system.exited_processes():
            words = "; ".join(f"{process.end}: {process.log_tail(3)}" for process in ended)
            raise SetupFailed(f"{words}\nthe complete log is {system.log(ended[0].name)}")
        await asyncio.sleep(POLL_INTERVAL_S)


def _show_new_lines(log: Path, offset: int, component: str, format_line: Callable[[str], str]) -> int:
    """Print the lines after the offset `offset`, and return the offset after the last complete line."""
    with suppress(OSError), log.open("rb") as file:
        offset = log_files.start_of(log, offset)
        file.seek(offset)
        text, newline, _ = file.read().rpartition(b"\n")
        # Other lines, such as Celery's banner, are only in the file.
        for line in (line for line in text.decode(errors="replace").splitlines() if line.startswith("{")):
            print(f"{component:6} {format_line(line)}" if console.is_terminal else format_line(line), flush=True)
        return offset + len(text) + len(newline)
    return offset
