"""`make demo` and `ari-conf demo`: three callers talk in one conference on this machine, and their received audio shows
which voices each heard.

Everything is real: Asterisk, Redis, S3, the worker, SIP and RTP on loopback, HTTP. The run leaves each caller's
received audio as WAV files, and the logs if it failed.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.markup import escape

from ari_conf.cli.up import until_stopped
from ari_conf.common.installation import CHECKOUT, data_folder
from ari_conf.common.redis_client import connect_in_threads
from ari_conf.errors import AriConfError
from ari_conf.local.system import LocalSystem
from ari_conf.store import accounts
from demo.application import Application, ReceivedRequest
from demo.phone import CallFailed, Switchboard, now_ms
from demo.report import Progress, console, print_summary, write_recordings
from demo.scenario import DIALLED, Caller, make_callers

PROGRAM = "ari-conf" if CHECKOUT is None else "make"
FOLDER = data_folder() / "demo"
HEARD = FOLDER / "heard"
"""WAV files with the received audio of each caller of the last run."""


class DemoFailed(AriConfError):
    """An expected result of the demo that did not occur."""


def main() -> int:
    """Run the demo and return the exit code."""
    if len(sys.argv) > 1:
        sys.stdout.write(f"usage: python -m demo\n\n{__doc__}")
        return 0 if sys.argv[1:] in (["-h"], ["--help"]) else 2
    FOLDER.mkdir(parents=True, exist_ok=True)
    # Each run has a folder of its own, so that leftovers of other runs do not disturb it.
    folder = Path(tempfile.mkdtemp(dir=FOLDER))
    finished = False

    async def run() -> None:
        nonlocal finished
        await _run(folder)
        finished = True

    try:
        until_stopped(run)
    except AriConfError as error:
        console.print(f"\n[bold red]The demo failed:[/] {escape(str(error))}", soft_wrap=True)
        console.print(f"The logs are in {folder}; run `{PROGRAM} demo` to try again.", soft_wrap=True)
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0 if finished else 130


async def _run(folder: Path) -> None:
    progress = Progress()
    system = LocalSystem(folder, {"ARI_CONF_ALLOWED_NETWORKS": "127.0.0.0/8"})
    progress.line(f"starting {', '.join(system.components)}, all on free ports of 127.0.0.1 …")
    async with system, Switchboard(3) as phones:
        callers = progress.callers = make_callers(list(phones))
        documents = {caller.number: caller.document for caller in callers}
        async with Application(documents, progress.show_request) as application:
            await asyncio.to_thread(_introduce, system, application)
            progress.line(f"all components run; calls go to sip:{DIALLED}@{system.sip_address}")
            until_ms = await _run_conference(system, application, progress, callers)
    failures = print_summary(callers, until_ms)
    files = write_recordings(callers, until_ms, HEARD)
    if failures:
        raise DemoFailed("; ".join(failures))
    callbacks = sum(received.path == "/events" for received in application.received)
    console.print(
        f"\n[bold green]Each of the three heard the other two.[/] {callbacks} callbacks arrived in order, all signed.\n"
        f"Listen to what they heard: {escape(', '.join(map(str, files)))}\n"
        f"Call it yourself: `{PROGRAM} up` prints the address for your softphone.",
        soft_wrap=True,
    )


def _introduce(system: LocalSystem, application: Application) -> None:
    """Store the application's URLs in the account, and give the application the account's auth token."""
    client = connect_in_threads(system.settings.redis_url.get_secret_value())
    answer, hangup = f"{application.url}/answer", f"{application.url}/hangup"
    record = accounts.update(client, system.account, answer_url=answer, hangup_url=hangup)
    application.token = record.token
    client.close()


async def _run_conference(
    system: LocalSystem, application: Application, progress: Progress, callers: list[Caller]
) -> float:
    """Play the conference from the first call to the last hangup, and return the end of the talking in epoch ms."""
    *guests, host = callers
    for caller in callers:
        await _enter(system, application, progress, caller)
    progress.line("all three have entered, and speak at the same time …")
    for caller in callers:
        caller.in_since_ms = now_ms()
        caller.phone.say(caller.speech)
    await asyncio.sleep(max(len(caller.speech) for caller in callers) / 8000 + 0.5)
    until_ms = now_ms()
    first_guest, other_guests = guests[0], guests[1:]
    progress.line(f"{progress.name(first_guest.number)} hangs up")
    await first_guest.phone.hang_up()
    await _expect(
        application, _is_event_of(first_guest, "ConferenceExit"), f"no callback reported that {first_guest.name} left"
    )
    progress.line(f"{progress.name(host.number)}, the host, hangs up, which ends the conference")
    await host.phone.hang_up()
    for caller in (host, *other_guests):
        await _expect(
            application, _is_event_of(caller, "ConferenceExit"), f"no callback reported that {caller.name} left"
        )
    for caller in other_guests:
        progress.line(f"{progress.name(caller.number)} hears the rest of their document, and is hung up")
        try:
            await caller.phone.wait_until_hung_up(within=20)
        except TimeoutError:
            raise DemoFailed(f"{caller.name} was not hung up at the end of their document") from None
    for caller in callers:
        await _expect(
            application,
            _is_event_of(caller, "Hangup"),
            f"the hangup URL did not receive the end of {caller.name}'s call",
        )
    _check_callbacks(application)
    return until_ms


async def _enter(system: LocalSystem, application: Application, progress: Progress, caller: Caller) -> None:
    progress.line(f"{progress.name(caller.number)} calls {DIALLED}")
    calling = caller.phone.call(
        f"sip:{DIALLED}@{system.sip_address}", from_user=caller.number, display_name=caller.name
    )
    try:
        await asyncio.wait_for(calling, 20)
    except (CallFailed, TimeoutError) as error:
        raise DemoFailed(f"{caller.name}'s call was not answered: {error or 'no response within 20 s'}") from None
    await _expect(
        application, _is_event_of(caller, "ConferenceEnter"), f"no callback reported that {caller.name} entered"
    )


def _is_event_of(caller: Caller, event: str) -> Callable[[ReceivedRequest], bool]:
    return lambda request: request["From"] == caller.number and request["Event"] == event


async def _expect(application: Application, what: Callable[[ReceivedRequest], bool], otherwise: str) -> None:
    if not await application.wait_for_request(what):
        raise DemoFailed(f"{otherwise} within 15 s")


def _check_callbacks(application: Application) -> None:
    events = [request for request in application.received if request.path == "/events"]
    numbers = [int(request["ConferenceSequence"]) for request in events]
    if numbers != list(range(1, len(numbers) + 1)):
        raise DemoFailed(f"the conference's callbacks arrived out of order: {numbers}")
    if unsigned := [request for request in application.received if not request.signed]:
        raise DemoFailed(f"{len(unsigned)} requests were not signed with the account's token")


if __name__ == "__main__":
    sys.exit(main())
