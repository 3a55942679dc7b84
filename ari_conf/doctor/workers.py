"""Checks of the workers that store and transcribe recordings."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import redis

from ari_conf.common.extras import extra
from ari_conf.common.redis_client import connect_in_threads
from ari_conf.common.redis_keys import PREFIX
from ari_conf.doctor import asterisk, backlogs
from ari_conf.doctor.check import DEADLINE, CheckFailed
from ari_conf.errors import TranscriptionFailed, TranscriptionRefused
from ari_conf.queues import worker_health
from ari_conf.recordings import jobs, transcribers
from ari_conf.settings import Settings
from ari_conf.store import accounts

T = TypeVar("T")
LISTEN_S = 30.0
HALF_A_SECOND = bytes(16_000)


@dataclass(frozen=True, slots=True)
class WorkerFleet:
    hosts: frozenset[str]
    """Names of the machines whose workers store recordings."""
    asterisks: frozenset[str]
    """Names of the Asterisks that share this Redis."""


def workers(settings: Settings) -> str:
    """Check the workers that store recordings. Each must reach the Asterisk that has the file at the job's address."""
    fleet, given, here = _fleet(settings), settings.ari_url_for_workers, socket.gethostname()
    if given:
        _same_asterisk(settings, given)
    elif (urlsplit(settings.ari_url).hostname or "").startswith(asterisk.LOOPBACK):
        others = fleet.asterisks - {asterisk.name(settings)} if fleet.asterisks else fleet.asterisks
        if elsewhere := sorted(fleet.hosts - {here}) or sorted(others):
            raise CheckFailed(
                f"a worker on another machine would look for this Asterisk's recordings at {settings.ari_url} on its "
                f"own machine ({', '.join(elsewhere)} shares this Redis): set ARI_CONF_ARI_URL_FOR_WORKERS to an "
                "address that all workers reach, and use the same ARI user and password for all Asterisk servers"
            )
    if not fleet.hosts:
        raise backlogs.no_worker_result(settings, jobs.STORE_QUEUE, "stores recordings")
    return f"{', '.join(sorted(fleet.hosts))} store recordings, from {given or settings.ari_url}"


def transcription(settings: Settings) -> str:
    """Check the transcription engine by loading it or sending it a request, as a worker does."""
    from ari_conf.transcription.engines import create_engine  # the server itself does not need it

    ours = settings.transcription_engine == "local" and not settings.transcription_model
    if ours and not importlib.util.find_spec("faster_whisper"):
        if known := _of_workers(settings):
            return f"not installed here; workers have {', '.join(known)}"
        return _nothing(settings, known)
    try:
        found = create_engine(settings, LISTEN_S)
        if settings.transcription_engine == "http":
            found.transcribe(HALF_A_SECOND)
    except (TranscriptionFailed, TranscriptionRefused) as error:
        where = " (ARI_CONF_TRANSCRIPTION_URL, _KEY and _MODEL)" if settings.transcription_engine == "http" else ""
        raise CheckFailed(f"{error}{where}") from None
    except Exception as error:  # each library of the engine has its own exceptions
        raise CheckFailed(f"the model could not be loaded: {error}; correct ARI_CONF_TRANSCRIPTION_MODEL") from None
    return found.name


def _nothing(settings: Settings, of_workers: list[str] | None) -> str:
    """Return the result without an engine. Raises CheckFailed only if a transcription was requested: it is an extra."""
    if of_workers is None:
        return "not installed here; to transcribe, run on the workers: " + extra("transcription")
    install = f"install it on the workers with {extra('transcription')} (docs/operations/workers.md)"
    if asked := _given_up(settings):
        raise CheckFailed(
            f"no worker has a transcription engine, and {asked} recording{'' if asked == 1 else 's'} could not be "
            f"transcribed: {install}, and run `ari-conf recordings retry`"
        )
    return f"no worker has a transcription engine, so the dashboard does not offer transcription: {install}"


def _given_up(settings: Settings) -> int:
    """Return the number of transcriptions that were given up because no worker had an engine."""
    lost = _read(settings, lambda client: jobs.given_up(client, accounts.ids(client))) or ()
    return sum(job.error == transcribers.MISSING for _, kind, job in lost if kind == jobs.TRANSCRIPTION_QUEUE)


def _of_workers(settings: Settings) -> list[str] | None:
    """Return the result of `transcribers.engines`; None also if Redis does not respond."""
    return _read(settings, transcribers.engines)


def _read(settings: Settings, ask: Callable[[redis.Redis], T]) -> T | None:
    client = connect_in_threads(settings.redis_url.get_secret_value(), socket_timeout=DEADLINE)
    try:
        return ask(client)
    except (redis.RedisError, OSError):
        return None  # another check reports it
    finally:
        client.close()


def _fleet(settings: Settings) -> WorkerFleet:
    client: Any = connect_in_threads(settings.redis_url.get_secret_value(), socket_timeout=DEADLINE)
    try:
        ids = list(worker_health.threads_of_live(client, jobs.STORE_QUEUE))
        states = [key.decode() for key in client.scan_iter(match=PREFIX + "state:*", count=1000)]
    except (redis.RedisError, OSError) as error:
        raise CheckFailed(f"could not be checked: Redis does not respond ({error})") from None
    finally:
        client.close()
    # A worker's id is HOST-PID-RANDOM.
    hosts = frozenset(one.rsplit("-", 2)[0] for one in ids)
    return WorkerFleet(hosts, frozenset(state.removeprefix(PREFIX + "state:") for state in states))


def _same_asterisk(settings: Settings, given: str) -> None:
    try:
        there = asterisk.ask(settings.model_copy(update={"ari_url": given}), "/asterisk/info").json()
    except CheckFailed as wrong:
        text = str(wrong).replace("ARI_CONF_ARI_URL", "ARI_CONF_ARI_URL_FOR_WORKERS")
        raise CheckFailed(f"at the address for workers: {text}") from None
    here = asterisk.ask(settings, "/asterisk/info").json()
    if there["system"].get("entity_id") != here["system"].get("entity_id"):
        raise CheckFailed(
            f"ARI_CONF_ARI_URL_FOR_WORKERS ({given}) leads to another Asterisk than {settings.ari_url}: correct it"
        )
