"""Checks of this machine: programs, folders, and the difference of its clock from others."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from getpass import getuser
from pathlib import Path
from uuid import uuid4

import requests

from ari_conf.common.extras import extra
from ari_conf.common.redis_client import connect_in_threads
from ari_conf.doctor import asterisk
from ari_conf.doctor.check import DEADLINE, CheckFailed, Doubtful
from ari_conf.media.voices import installed_voices
from ari_conf.settings import Settings

MAX_CLOCK_DIFFERENCE_S = 3.0
"""Maximum difference of clocks, in seconds. Two of them are read from HTTP's Date header, which has whole seconds."""


def ffmpeg(settings: Settings) -> str:
    try:
        command = [settings.ffmpeg, "-version"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=True)
    except (OSError, subprocess.SubprocessError):
        raise CheckFailed(
            f"{settings.ffmpeg} could not be run, and without it Play and Speak are silent: run `apt-get install "
            "ffmpeg`, or set ARI_CONF_FFMPEG to its path"
        ) from None
    return " ".join(result.stdout.split()[:3])


def speech(settings: Settings) -> str:
    voices = installed_voices(settings.voice)
    if not all(voices.values()):
        missing = " and no ".join(gender for gender, found in voices.items() if not found)
        raise CheckFailed(
            f"no {missing} voice is installed, and without it Speak is silent: run `apt-get install flite`; "
            "better voices are festival with festvox-us-slt-hts (WOMAN) and "
            f"{extra('speech')} (MAN)"
        )
    best = {gender: found[0].name for gender, found in voices.items()}
    if settings.voice != "auto" and not any(name.startswith(settings.voice) for name in best.values()):
        raise CheckFailed(
            f"{settings.voice}, which ARI_CONF_VOICE names, is not installed: install it, or set ARI_CONF_VOICE=auto"
        )
    return ", ".join(f"{gender}: {name}" for gender, name in best.items())


def clock(settings: Settings) -> str:
    """Check that the machines' clocks agree: callbacks contain times, and S3 signatures depend on them."""
    differences = {}
    for name, read in (("Asterisk", _clock_of_asterisk), ("Redis", _clock_of_redis), ("S3", _clock_of_s3)):
        with suppress(Exception):  # another check reports a component that does not respond
            differences[name] = read(settings) - time.time()
    if excessive := {name: seconds for name, seconds in differences.items() if abs(seconds) > MAX_CLOCK_DIFFERENCE_S}:
        listing = ", ".join(
            f"{name}'s is {abs(seconds):.0f} s {'ahead' if seconds > 0 else 'behind'}"
            for name, seconds in excessive.items()
        )
        raise CheckFailed(
            f"the clocks differ from this machine's: {listing}; run an NTP client, such as chrony, on each"
        )
    if not differences:
        raise Doubtful("not compared: neither Asterisk nor Redis nor S3 responds")
    return f"agrees with {', '.join(differences)}"


def sounds_folder(settings: Settings) -> str:
    """Check the folder as `serve` needs it: the user who runs the doctor can write it, Asterisk's user can enter it."""
    folder = settings.sounds_folder
    probe = folder / "parts" / f"doctor-{uuid4()}"
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"a probe of ari-conf doctor")
        probe.unlink()
    except OSError as error:
        raise CheckFailed(
            f"{folder} could not be created or written ({error.strerror}), and without it Play and Speak are silent: "
            f"create it, owned by the user of `ari-conf serve` (this is {getuser()}), or set ARI_CONF_SOUNDS_FOLDER"
        ) from None
    user = asterisk.user(settings)
    if settings.sounds_url is None and user not in ("", "root", getuser()) and (closed := _first_closed_folder(folder)):
        raise CheckFailed(
            f"{closed} is closed to other users, and Asterisk runs as {user}, so it can't play the sounds in {folder}: "
            f"run `chmod o+x {closed}`, or set ARI_CONF_SOUNDS_FOLDER"
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
            f"{where} does not exist: set ARI_CONF_DOCUMENTS to its absolute path if a dialplan names documents"
        ) from None
    except OSError as error:
        raise CheckFailed(f"{where} could not be read ({error.strerror}): allow {getuser()} to read it") from None
    return f"{where}: {', '.join(names) or 'no documents'}"


def _first_closed_folder(folder: Path) -> Path | None:
    """Return the first folder on the path that is closed to other users, or None."""
    for path in (*reversed(folder.absolute().parents), folder):
        with suppress(OSError):
            if not path.stat().st_mode & 0o001:
                return path
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
