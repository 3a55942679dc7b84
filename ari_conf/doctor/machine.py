"""This machine: the programs, and its clock beside the others'."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from getpass import getuser
from pathlib import Path
from uuid import uuid4

import requests

from ari_conf.doctor import asterisk
from ari_conf.doctor.found import DEADLINE, Doubtful, Wrong
from ari_conf.extras import extra
from ari_conf.media.voices import installed
from ari_conf.redis_client import connect_in_threads
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
            "without it Play and Speak are silent"
        ) from None
    return " ".join(ran.stdout.split()[:3])


def speech(settings: Settings) -> str:
    voices = installed(settings.voice)
    if not all(voices.values()):
        missing = " and no ".join(gender for gender, found in voices.items() if not found)
        raise Wrong(
            f"there is no {missing} voice, without which Speak is silent: `apt-get install flite`; "
            "better ones are festival with festvox-us-slt-hts (WOMAN) and "
            f"{extra('speech')} (MAN)"
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
    if not differences:
        raise Doubtful("not compared: neither Asterisk nor Redis nor S3 answers")
    return f"as that of {', '.join(differences)}"


def sounds_folder(settings: Settings) -> str:
    """As `serve` needs it, by the user who runs the doctor."""
    folder = settings.sounds_folder
    probe = folder / "parts" / f"doctor-{uuid4()}"
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"a probe of ari-conf doctor")
        probe.unlink()
    except OSError as error:
        raise Wrong(
            f"{folder} can't be made or written ({error.strerror}), and without it Play and Speak are silent: make it, "
            f"owned by the user of `ari-conf serve` (this is {getuser()}), or set ARI_CONF_SOUNDS_FOLDER"
        ) from None
    user = asterisk.user(settings)
    if settings.sounds_url is None and user not in ("", "root", getuser()) and (closed := _closed(folder)):
        raise Wrong(
            f"{closed} is closed to other users, and Asterisk runs as {user}: it can't play what is in {folder}; "
            f"`chmod o+x {closed}`, or set ARI_CONF_SOUNDS_FOLDER"
        )
    return str(folder)


def documents_folder(settings: Settings) -> str:
    folder = settings.documents
    if not folder.is_absolute():
        where = f"{folder}, in the folder where `ari-conf serve` is started (here: {folder.absolute()})"
    else:
        where = str(folder)
    try:
        names = sorted(path.stem for path in folder.iterdir() if path.suffix == ".xml")
    except FileNotFoundError:
        raise Doubtful(
            f"there is no {where}: set ARI_CONF_DOCUMENTS to its whole path if a dialplan names documents"
        ) from None
    except OSError as error:
        raise Wrong(f"{where} can't be read ({error.strerror}): let {getuser()} read it") from None
    return f"{where}: {', '.join(names) or 'no document'}"


def _closed(folder: Path) -> Path | None:
    """The first folder on the way there that not all users may enter."""
    for one in (*reversed(folder.absolute().parents), folder):
        with suppress(OSError):
            if not one.stat().st_mode & 0o001:
                return one
    return None


def _clock_of_asterisk(settings: Settings) -> float:
    return parsedate_to_datetime(asterisk.ask(settings, "/asterisk/ping").headers["Date"]).timestamp()


def _clock_of_redis(settings: Settings) -> float:
    seconds, microseconds = connect_in_threads(settings.redis_url.get_secret_value(), socket_timeout=DEADLINE).time()
    return float(seconds + microseconds / 1e6)


def _clock_of_s3(settings: Settings) -> float:
    endpoint = settings.s3_endpoint or f"https://s3.{settings.s3_region}.amazonaws.com"
    answer = requests.head(endpoint, timeout=DEADLINE)
    return parsedate_to_datetime(answer.headers["Date"]).timestamp()
