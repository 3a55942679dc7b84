"""This machine: the programs, and its clock beside the others'."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime

import redis
import requests

from ari_conf.doctor import asterisk
from ari_conf.doctor.found import DEADLINE, Wrong
from ari_conf.media.voices import installed
from ari_conf.settings import Settings

CLOCKS_APART = 3.0
"""Seconds. Two of the clocks are read from HTTP's Date, which has whole seconds."""


def ffmpeg(settings: Settings) -> str:
    try:
        command = [settings.ffmpeg, "-version"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=True)
    except (OSError, subprocess.SubprocessError):
        raise Wrong(
            f"{settings.ffmpeg} can't be run: `apt-get install ffmpeg`, or name one in ARI_CONF_FFMPEG; "
            "without it Play has no sound"
        ) from None
    return " ".join(ran.stdout.split()[:3])


def speech(settings: Settings) -> str:
    voices = installed(settings.voice)
    if not all(voices.values()):
        missing = " and no ".join(gender for gender, found in voices.items() if not found)
        raise Wrong(
            f"there is no {missing} voice, without which Speak is silent: `apt-get install flite`; "
            "better ones are festival with festvox-us-slt-hts (WOMAN) and "
            "`pip install ari_conf[speech]` (MAN)"
        )
    best = {gender: found[0].name for gender, found in voices.items()}
    if settings.voice != "auto" and not any(name.startswith(settings.voice) for name in best.values()):
        raise Wrong(
            f"{settings.voice}, which ARI_CONF_VOICE names, is not installed: install it, or set ARI_CONF_VOICE=auto"
        )
    return ", ".join(f"{gender}: {name}" for gender, name in best.items())


def clock(settings: Settings) -> str:
    """Callbacks carry times, signatures of S3 depend on them: the machines must agree."""
    differences = {}
    for name, read in (("Asterisk", _clock_of_asterisk), ("Redis", _clock_of_redis), ("S3", _clock_of_s3)):
        with suppress(Exception):  # what does not answer is another check's
            differences[name] = read(settings) - time.time()
    if wrong := {name: by for name, by in differences.items() if abs(by) > CLOCKS_APART}:
        said = ", ".join(f"{name}'s is {abs(by):.0f} s {'ahead' if by > 0 else 'behind'}" for name, by in wrong.items())
        raise Wrong(f"the clocks differ from this machine's: {said}; run an NTP client, such as chrony, on each")
    return f"as that of {', '.join(differences)}" if differences else "nothing answered that it could be compared with"


def _clock_of_asterisk(settings: Settings) -> float:
    return parsedate_to_datetime(asterisk.ask(settings, "/asterisk/ping").headers["Date"]).timestamp()


def _clock_of_redis(settings: Settings) -> float:
    seconds, microseconds = redis.Redis.from_url(settings.redis_url.get_secret_value(), socket_timeout=DEADLINE).time()
    return float(seconds + microseconds / 1e6)


def _clock_of_s3(settings: Settings) -> float:
    endpoint = settings.s3_endpoint or f"https://s3.{settings.s3_region}.amazonaws.com"
    answer = requests.head(endpoint, timeout=DEADLINE)
    return parsedate_to_datetime(answer.headers["Date"]).timestamp()
