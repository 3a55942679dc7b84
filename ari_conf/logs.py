"""One line per log entry: readable on a terminal, a JSON object otherwise; the libraries' entries in the same form."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from typing import TextIO

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from ari_conf.settings import Settings

SECRETS = frozenset({"token", "auth_token", "password", "secret", "secret_key", "digit", "digits", "authorization"})
"""Fields that are never written, whoever gives them."""

LOUD_LIBRARIES = (
    "aiohttp.access",
    "celery.app.trace",
    "celery.worker.strategy",
    "asyncio",
    "botocore",
    "boto3",
    "urllib3",
    "s3transfer",
    "kombu",
    "picows",
    "amqp",
)
"""They tell at level info what is of no use to whoever watches calls."""

_encode = msgspec.json.Encoder(enc_hook=str).encode
_LOGIN_IN_URL = re.compile(r"(?<=://)[^/@\s]*@")


def set_up(settings: Settings, stream: TextIO | None = None) -> None:
    """Once, before the first entry. Entries go to `stream`, or else to stderr."""
    stream = stream or sys.stderr
    text = settings.log_format == "text" or (settings.log_format == "auto" and stream.isatty())
    shared: list[Processor] = [structlog.processors.add_log_level, _at, without_secrets]
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    render = _text(stream.isatty()) if text else _json()
    # Ours don't go by way of the library's loggers: that took three quarters of a line's time (docs/performance.md).
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in LOUD_LIBRARIES:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def without_secrets(_logger: WrappedLogger, _method: str, entry: EventDict) -> EventDict:
    """Leaves out the fields that are secrets, and a login that stands in a URL."""
    for name, value in tuple(entry.items()):
        if name.lower() in SECRETS:
            del entry[name]
        elif isinstance(value, str) and "@" in value:
            entry[name] = _LOGIN_IN_URL.sub("***@", value)
    return entry


def _at(_logger: WrappedLogger, _method: str, entry: EventDict) -> EventDict:
    """UTC, with microseconds. All of a second have the same beginning."""
    seconds, ns = divmod(time.time_ns(), 1_000_000_000)
    entry["timestamp"] = f"{_second(seconds)}.{ns // 1000:06}Z"
    return entry


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def reader(colours: bool) -> Callable[[str], str]:
    """Makes a line that was written as JSON readable; any other line stays as it is."""
    render = structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)

    def read(line: str) -> str:
        try:
            entry = json.loads(line)
        except ValueError:
            return line
        if not (isinstance(entry, dict) and "event" in entry):
            return line
        entry["timestamp"] = str(entry.get("timestamp", ""))[11:23]
        exception = entry.pop("exception", None)
        return str(render(None, "", entry)) + (f"\n{exception}" if exception else "")

    return read


def _text(colours: bool) -> list[Processor]:
    return [structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)]


def _json() -> list[Processor]:
    return [structlog.processors.format_exc_info, _dumps]


def _dumps(_logger: WrappedLogger, _method: str, entry: EventDict) -> str:
    try:
        return _encode(entry).decode()
    except (TypeError, ValueError):  # half a character, which UTF-8 can't say; a key that is no text
        return json.dumps(entry, default=str, skipkeys=True)
