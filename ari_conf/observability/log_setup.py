"""Log setup: one line per entry, readable on a terminal and a JSON object otherwise, also for entries of libraries."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TextIO, cast

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from ari_conf.common.safe_text import ACTING, C0, visible
from ari_conf.observability.log_writer import LogWriter
from ari_conf.settings import Settings

SECRETS = frozenset({"token", "auth_token", "password", "secret", "secret_key", "digit", "digits", "authorization"})
"""Fields that are never logged, whichever module or library sets them."""

NOISY_LOGGERS = (
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
"""Loggers whose entries at level info are of no use to an operator who watches calls."""

_writer: LogWriter | None = None
_encode = msgspec.json.Encoder(enc_hook=str).encode
_PLAIN = frozenset({int, float, bool, type(None)})
_WHOLE_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^?#]*[?#]")
_URL = re.compile(r"(?P<scheme>\b[a-zA-Z][a-zA-Z0-9+.-]*://)(?P<login>[^\s/?#]*@)?(?P<path>[^\s?#]*)([?#]\S*)?")
_PATH_WITH_QUERY = re.compile(r"(?<![\w/])(/[^\s?]*)\?\S+")
_RECORDING = re.compile(r"(?<=/Recording/)[^\s/]+")
_URL_MARKS = ("?", "#", "@", "/Recording/")
_ACTING_IN_JSON = re.compile(f"[{ACTING.replace(C0, '')}]")


def configure_logging(settings: Settings, stream: TextIO | None = None, *, in_thread: bool = False) -> LogWriter | None:
    """Configure logging; called once, before the first entry. Entries go to `stream`, by default to stderr.

    With `in_thread`, a thread writes the entries, so that logging never waits for the stream (see `flush`). Returns
    the thread's writer, or None without a thread."""
    stream = stream or sys.stderr
    terminal = stream.isatty()
    text = settings.log_format == "text" or (settings.log_format == "auto" and terminal)
    # An exception becomes text before secrets are removed, because its message may contain a URL.
    format_exception = structlog.processors.format_exc_info
    shared: list[Processor] = [structlog.processors.add_log_level, _add_timestamp, format_exception, without_secrets]
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    render = _text_renderers(terminal) if text else [_encode_line]
    writer = LogWriter(stream) if in_thread else None
    global _writer
    if writer is not None:
        _writer = writer
        writer.start()
        stream = cast(TextIO, writer)
    # The project's own entries bypass the standard library's loggers, which took three quarters of a line's time
    # (docs/development/performance.md).
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
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    return writer


def flush() -> None:
    """Wait until all entries so far are written, 2 s at most: for a process that is about to exit abruptly."""
    if _writer is not None:
        _writer.wait_until_written()


def without_secrets(_logger: WrappedLogger, _method: str, entry: EventDict) -> EventDict:
    """Remove the fields that are secrets, and the parts of URLs, in any field, that may be secret."""
    for name, value in tuple(entry.items()):
        if name.lower() in SECRETS:
            del entry[name]
        elif type(value) is str:
            if "/" in value:
                entry[name] = bare_urls(value)
        elif type(value) not in _PLAIN and name[0] != "_":  # not one of structlog's own
            entry[name] = _without_secrets(value)
    return entry


def _without_secrets(value: Any) -> Any:
    if isinstance(value, str):
        return bare_urls(value)
    if isinstance(value, dict):
        kept = ((name, text) for name, text in value.items() if str(name).lower() not in SECRETS)
        return {bare_urls(str(name)): _without_secrets(text) for name, text in kept}
    if isinstance(value, list | tuple | set | frozenset):
        return [_without_secrets(item) for item in value]
    return value if type(value) in _PLAIN else bare_urls(str(value))


def bare_urls(text: str) -> str:
    """Return the text with each URL cut: without login, query and fragment, which may be secrets.

    A recording's id is cut as well, because it gives access where the account requires no login. So is the query of a
    path without a host."""
    if "://" in text and any(mark in text for mark in _URL_MARKS):
        if _WHOLE_URL.match(text):
            # The query may contain spaces, so the whole rest counts as query.
            text = re.split("[?#]", text, maxsplit=1)[0]
        text = _URL.sub(_cut_url, text)
    return _PATH_WITH_QUERY.sub(r"\1", text) if "?" in text else text


def _cut_url(url: re.Match[str]) -> str:
    return url["scheme"] + ("***@" if url["login"] else "") + _RECORDING.sub("***", url["path"])


def _add_timestamp(_logger: WrappedLogger, _method: str, entry: EventDict) -> EventDict:
    """Add the timestamp: UTC, with microseconds. The part up to the second is cached."""
    seconds, ns = divmod(time.time_ns(), 1_000_000_000)
    entry["timestamp"] = f"{_format_second(seconds)}.{ns // 1000:06}Z"
    return entry


@lru_cache(maxsize=2)
def _format_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def line_formatter(colours: bool) -> Callable[[str], str]:
    """Return a function that makes a JSON line readable, and only escapes the control characters of any other line."""
    render = structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)

    def format_line(line: str) -> str:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            return visible(line)
        if not (isinstance(entry, dict) and "event" in entry):
            return visible(line)
        entry["timestamp"] = str(entry.get("timestamp", ""))[11:23]
        return str(render(None, "", _escape_controls(None, "", entry)))

    return format_line


def _text_renderers(colours: bool) -> list[Processor]:
    return [
        _escape_controls,
        structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback),
    ]


def _escape_controls(_logger: WrappedLogger | None, _method: str, entry: EventDict) -> EventDict:
    """Escape control characters: the renderer writes them as they are."""
    return {
        visible(name): visible(value, lines=name == "exception") if isinstance(value, str) else value
        for name, value in entry.items()
    }


def _encode_line(_logger: WrappedLogger, _method: str, entry: EventDict) -> str:
    try:
        line = _encode(entry).decode()
    except (TypeError, ValueError):  # a surrogate, which UTF-8 can't encode; a key that is not a string
        line = json.dumps(entry, default=str, skipkeys=True)
    if line.isprintable():
        return line
    # JSON itself escapes only C0 of these, and `less` or `tail` show the file on a terminal as well.
    return _ACTING_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", line)
