"""Command `ari-conf up`: prints the addresses of the started system, then its log until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from ari_conf.cli.terminal import console, say, say_of
from ari_conf.common.redis_client import connect_in_threads
from ari_conf.common.safe_text import visible
from ari_conf.errors import SetupFailed
from ari_conf.local.system import LocalSystem, settings_from_environment
from ari_conf.observability.log_setup import line_formatter
from ari_conf.store import accounts

OURS = ("serve", "worker", "web")
"""Components whose logs are shown; the logs of the others would hide them."""

LOOK_AGAIN = 0.1

NEEDS_A_PROGRAM = "://example.com/"
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
        task, told = asyncio.ensure_future(work()), False

        def stop() -> None:
            nonlocal told
            told = True
            task.cancel()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        await asyncio.wait([task])
        if not task.cancelled() and not (told and isinstance(task.exception(), SetupFailed)):
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
    say_of("Account    ", f"{system.account}, {_token(system)}")
    say_of("Dashboard  ", f"{settings.public_url}/  (log in with the account and its token)")
    say_of("Recordings ", f"{settings.s3_endpoint or 'AWS'}, bucket {settings.s3_bucket}")
    say_of("Logs       ", f"{system.log('serve').parent} and {system.log('asterisk')}")
    say_of("Commands   ", f"in another terminal, after  . {system.environment_file}")
    say("             ari-conf doctor, account set, problems ACCOUNT, lanes …")
    say_of("Stop       ", "Ctrl-C")
    say("")


def _introduce_numbers(system: LocalSystem) -> None:
    where = "on this machine" if system.is_local else "that reaches it, without a password"
    say_of("Call       ", f"from any SIP phone {where}, for the account {system.account}:")
    for path in sorted(system.settings.documents.glob("*.xml")):
        if NEEDS_A_PROGRAM not in path.read_text(errors="replace"):
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


def _token(system: LocalSystem) -> str:
    """Return a text with the token; with the command that prints it if the output, not a terminal, may be kept."""
    show = f"ari-conf account show {system.account} --token"
    if not console.is_terminal:
        return f"its token: {show}"
    with connect_in_threads(system.settings.redis_url.get_secret_value(), socket_timeout=5.0) as client:
        record = accounts.get(client, system.account)
    return f"its token: {record.token}" if record is not None else "which was removed"


async def _show_logs(system: LocalSystem) -> None:
    read = line_formatter(console.is_terminal) if console.is_terminal else visible
    places = {part: system.process(part).log_start for part in OURS if part in system.components}
    while True:
        for part, place in places.items():
            places[part] = _show(system.log(part), place, part, read)
        if ended := system.exited_processes():
            words = "; ".join(f"{process.end}: {process.log_tail(3)}" for process in ended)
            raise SetupFailed(f"{words}\nthe complete log is {system.log(ended[0].name)}")
        await asyncio.sleep(LOOK_AGAIN)


def _show(log: Path, place: int, part: str, read: Callable[[str], str]) -> int:
    """Print the lines after the offset `place`, and return the offset after the last complete line."""
    with suppress(OSError), log.open("rb") as file:
        file.seek(place)
        text, newline, _ = file.read().rpartition(b"\n")
        # Other lines, such as Celery's banner, are only in the file.
        for line in (line for line in text.decode(errors="replace").splitlines() if line.startswith("{")):
            print(f"{part:6} {read(line)}" if console.is_terminal else read(line), flush=True)
        return place + len(text) + len(newline)
    return place
