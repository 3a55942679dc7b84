"""What those who store and transcribe recordings need."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import redis

from ari_conf import accounts, recordings, transcribers
from ari_conf.doctor import asterisk, waiting
from ari_conf.doctor.found import DEADLINE, Wrong
from ari_conf.errors import TranscriptionFailed, TranscriptionRefused
from ari_conf.extras import extra
from ari_conf.lanes import PREFIX, prefix
from ari_conf.redis_client import connect_in_threads
from ari_conf.settings import Settings

T = TypeVar("T")
LISTEN_S = 30.0
HALF_A_SECOND = bytes(16_000)


@dataclass(frozen=True, slots=True)
class Fleet:
    hosts: frozenset[str]
    """Of the machines whose workers store recordings."""
    asterisks: frozenset[str]
    """Those that share this Redis."""


def workers(settings: Settings) -> str:
    """Each job names the Asterisk that has the file: by an address that the worker must be able to reach."""
    fleet, given, here = _fleet(settings), settings.ari_url_for_workers, socket.gethostname()
    if given:
        _same_asterisk(settings, given)
    elif (urlsplit(settings.ari_url).hostname or "").startswith(asterisk.LOOPBACK):
        others = fleet.asterisks - {asterisk.name(settings)} if fleet.asterisks else fleet.asterisks
        if elsewhere := sorted(fleet.hosts - {here}) or sorted(others):
            raise Wrong(
                f"a worker on another machine would look for this Asterisk's recordings at {settings.ari_url} on its "
                f"own ({', '.join(elsewhere)} shares this Redis): set ARI_CONF_ARI_URL_FOR_WORKERS to an address that "
                "all workers reach, and give all Asterisks the same ARI user and password"
            )
    if not fleet.hosts:
        raise waiting.nobody(settings, recordings.QUEUE, "stores recordings")
    return f"{', '.join(sorted(fleet.hosts))} store recordings, from {given or settings.ari_url}"


def transcription(settings: Settings) -> str:
    """What transcribes is loaded, or asked, as a worker does."""
    from tasks.engines import engine  # the application itself needs nothing of it

    ours = settings.transcription_engine == "local" and not settings.transcription_model
    if ours and not importlib.util.find_spec("faster_whisper"):
        if known := _of_workers(settings):
            return f"not installed here; workers have {', '.join(known)}"
        return _nothing(settings, known)
    try:
        found = engine(settings, LISTEN_S)
        if settings.transcription_engine == "http":
            found.transcribe(HALF_A_SECOND)
    except (TranscriptionFailed, TranscriptionRefused) as error:
        where = " (ARI_CONF_TRANSCRIPTION_URL, _KEY and _MODEL)" if settings.transcription_engine == "http" else ""
        raise Wrong(f"{error}{where}") from None
    except Exception as error:  # each of the engine's libraries has exceptions of its own
        raise Wrong(f"the model can't be loaded: {error}; correct ARI_CONF_TRANSCRIPTION_MODEL") from None
    return found.name


def _nothing(settings: Settings, of_workers: list[str] | None) -> str:
    """It is an extra: nothing is wrong without it as long as nobody has asked for a transcription."""
    if of_workers is None:
        return "not installed here; where transcriptions are made: " + extra("transcription")
    install = f"workers can with {extra('transcription')} (docs/recordings.md)"
    if asked := _given_up(settings):
        raise Wrong(
            f"no worker has anything that transcribes, and {asked} could not be: {install}, and `ari-conf recordings "
            "retry` tries them again"
        )
    return f"nothing transcribes, so the page does not offer it: {install}"


def _given_up(settings: Settings) -> int:
    """How many recordings were to be transcribed when nothing was there that transcribes."""
    lost = _asked(settings, lambda client: recordings.lost(client, accounts.ids(client))) or ()
    return sum(job.error == transcribers.MISSING for _, kind, job in lost if kind == recordings.TRANSCRIPTIONS)


def _of_workers(settings: Settings) -> list[str] | None:
    """As `transcribers.engines`."""
    return _asked(settings, transcribers.engines)


def _asked(settings: Settings, ask: Callable[[redis.Redis], T]) -> T | None:
    client = connect_in_threads(settings.redis_url.get_secret_value(), socket_timeout=DEADLINE)
    try:
        return ask(client)
    except (redis.RedisError, OSError):
        return None  # that is another check's
    finally:
        client.close()


def _fleet(settings: Settings) -> Fleet:
    client: Any = connect_in_threads(settings.redis_url.get_secret_value(), socket_timeout=DEADLINE)
    try:
        ids = [one.decode() for one in client.zrange(prefix(recordings.QUEUE) + "workers", 0, -1)]
        states = [key.decode() for key in client.scan_iter(match=PREFIX + "state:*", count=1000)]
    except (redis.RedisError, OSError) as error:
        raise Wrong(f"not known, since Redis does not answer ({error})") from None
    finally:
        client.close()
    # A worker's id is HOST-PID-RANDOM.
    hosts = frozenset(one.rsplit("-", 2)[0] for one in ids)
    return Fleet(hosts, frozenset(state.removeprefix(PREFIX + "state:") for state in states))


def _same_asterisk(settings: Settings, given: str) -> None:
    try:
        there = asterisk.ask(settings.model_copy(update={"ari_url": given}), "/asterisk/info").json()
    except Wrong as wrong:
        text = str(wrong).replace("ARI_CONF_ARI_URL", "ARI_CONF_ARI_URL_FOR_WORKERS")
        raise Wrong(f"where workers are to find it: {text}") from None
    here = asterisk.ask(settings, "/asterisk/info").json()
    if there["system"].get("entity_id") != here["system"].get("entity_id"):
        raise Wrong(
            f"ARI_CONF_ARI_URL_FOR_WORKERS ({given}) leads to another Asterisk than {settings.ari_url}: correct it"
        )
