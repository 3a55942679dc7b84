"""Terminal output of the demo: its progress and its result."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ari_conf.media.tones import wav
from demo import audio_analysis
from demo.application import ReceivedRequest
from demo.g711 import RATE
from demo.scenario import Caller

console = Console(highlight=False)

HEARD_SHARE = 0.35
"""The minimum share of a speaker's words that counts as heard.

Over 15 s of speech, an absent voice reaches at most 0.1. A present one reaches 1, or less if a busy machine loses
packets, which is not the conference's fault.
"""


class Progress:
    """A log of one line per event, with the seconds since the start."""

    def __init__(self) -> None:
        self._started_at = time.monotonic()
        self.callers: Sequence[Caller] = ()

    def line(self, text: str) -> None:
        console.print(f"[dim]{time.monotonic() - self._started_at:6.1f} s[/]  {text}", soft_wrap=True)

    def show_request(self, request: ReceivedRequest) -> None:
        name = self.name(request["From"])
        what = {
            "StartApp": f"the document for {name} is requested",
            "ConferenceEnter": f"{name} has entered as member {escape(request['ConferenceMemberID'])}",
            "ConferenceExit": f"{name} has left ({escape(request['ConferenceExitReason'])})",
            "Hangup": f"{name}'s call has ended after {escape(request['Duration'])} s",
        }.get(request["Event"], escape(f"{request['Event']}, {name}"))
        signed = "signed" if request.signed else "[red]not signed[/]"
        self.line(f"  [dim]callback →[/] {escape(request.path):8} {what}  [dim]{signed}[/]")

    def name(self, number: str) -> str:
        caller = next((caller for caller in self.callers if caller.number == number), None)
        return f"[{caller.style}]{caller.name}[/]" if caller else escape(number)


def write_recordings(callers: Sequence[Caller], until_ms: float, folder: Path) -> list[Path]:
    """Write a WAV file of what each caller heard while all spoke, and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for caller in callers:
        heard = caller.phone.heard.between(caller.in_since_ms, until_ms)
        files.append(folder / f"{caller.name.lower()}.wav")
        files[-1].write_bytes(wav(heard.astype("<i2").tobytes(), RATE))
    return files


def print_summary(callers: Sequence[Caller], until_ms: float) -> list[str]:
    """Print a table of listeners and speakers, and return one sentence for each voice that was not heard."""
    table = Table(
        title="Words heard, as found in the audio that each phone received",
        title_justify="left",
        title_style="bold",
        min_width=66,
    )
    table.add_column("")
    for speaker in callers:
        table.add_column(f"{speaker.name}'s words", justify="center")
    failures = []
    for listener in callers:
        heard = listener.phone.heard.between(listener.in_since_ms, until_ms)
        cells = []
        for speaker in callers:
            share = audio_analysis.find_reference(heard, speaker.speech).score
            if speaker is listener:
                # Callers must not hear an echo of their own words.
                cells.append("[dim]no echo[/]" if share < HEARD_SHARE else f"[red]echo, {share:.0%}[/]")
                if share >= HEARD_SHARE:
                    failures.append(f"{listener.name} heard an echo")
            elif share >= HEARD_SHARE:
                cells.append(f"[green]heard[/] {share:.0%}")
            else:
                cells.append(f"[red]not heard[/] {share:.0%}")
                failures.append(f"{listener.name} did not hear {speaker.name}")
        table.add_row(f"[{listener.style}]{listener.name}[/] heard", *cells)
    console.print()
    console.print(table)
    return failures
