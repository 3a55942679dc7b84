"""One line per log entry: readable on a terminal, a JSON object otherwise; the libraries' entries in the same form."""

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

from ari_conf.log_writer import LogWriter
from ari_conf.settings import Settings
from ari_conf.visible import ACTING, C0, visible

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

_writer: LogWriter | None = None
_encode = msgspec.json.Encoder(enc_hook=str).encode
_PLAIN = frozenset({int, float, bool, type(None)})
_WHOLE_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^?#]*[?#]")
_URL = re.compile(r"(?P<scheme>\b[a-zA-Z][a-zA-Z0-9+.-]*://)(?P<login>[^\s/?#]*@)?(?P<path>[^\s?#]*)([?#]\S*)?")
_PATH_WITH_QUERY = re.compile(r"(?<![\w/])(/[^\s?]*)\?\S+")
_RECORDING = re.compile(r"(?<=/Recording/)[^\s/]+")
_WORTH_CUTTING = ("?", "#", "@", "/Recording/")
_ACTING_IN_JSON = re.compile(f"[{ACTING.replace(C0, '')}]")


def set_up(settings: Settings, stream: TextIO | None = None, *, in_thread: bool = False) -> LogWriter | None:
    """Once, before the first entry. Entries go to `stream`, or else to stderr. `in_thread`: written by a thread, which
    is returned, so that whoever logs never waits for the stream; see `flush`."""
    stream = stream or sys.stderr
    terminal = stream.isatty()
    text = settings.log_format == "text" or (settings.log_format == "auto" and terminal)
    # An exception becomes text before secrets are looked for: its message may hold a URL.
    format_exception = structlog.processors.format_exc_info
    shared: list[Processor] = [structlog.processors.add_log_level, _at, format_exception, without_secrets]
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    render = _text(terminal) if text else [_dumps]
    writer = LogWriter(stream) if in_thread else None
    global _writer
    if writer is not None:
        _writer = writer
        writer.start()
        stream = cast(TextIO, writer)
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
    return writer


def flush() -> None:
    """What was logged so far is written, if its reader takes it in time: for a process that ends without a word."""
    if _writer is not None:
        _writer.written()


def without_secrets(_logger: WrappedLogger, _method: str, entry: EventDict) -> EventDict:
    """Leaves out the fields that are secrets, and of each URL, in whichever field, what may be one."""
    for name, value in tuple(entry.items()):
        if name.lower() in SECRETS:
            del entry[name]
        elif type(value) is str:
            if "/" in value:
                entry[name] = bare_urls(value)
        elif type(value) not in _PLAIN and name[0] != "_":  # the library's own
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
    """The text with each URL cut: without login, query and fragment, which may be secrets, and without the id of a
    recording, which opens it where accounts ask for no login. Also a path without a host, if it has a query."""
    if "://" in text and any(mark in text for mark in _WORTH_CUTTING):
        if _WHOLE_URL.match(text):
            # Its query may hold spaces, so all of the rest counts as query.
            text = re.split("[?#]", text, maxsplit=1)[0]
        text = _URL.sub(_bare, text)
    return _PATH_WITH_QUERY.sub(r"\1", text) if "?" in text else text


def _bare(url: re.Match[str]) -> str:
    return url["scheme"] + ("***@" if url["login"] else "") + _RECORDING.sub("***", url["path"])


def _at(_logger: WrappedLogger, _method: str, entry: EventDict) -> EventDict:
    """UTC, with microseconds. All of a second have the same beginning."""
    seconds, ns = divmod(time.time_ns(), 1_000_000_000)
    entry["timestamp"] = f"{_second(seconds)}.{ns // 1000:06}Z"
    return entry


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def reader(colours: bool) -> Callable[[str], str]:
    """Makes a line that was written as JSON readable; any other line stays as it is, but for control characters."""
    render = structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)

    def read(line: str) -> str:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            return visible(line)
        if not (isinstance(entry, dict) and "event" in entry):
            return visible(line)
        entry["timestamp"] = str(entry.get("timestamp", ""))[11:23]
        return str(render(None, "", _shown(None, "", entry)))

    return read


def _text(colours: bool) -> list[Processor]:
    return [_shown, structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)]


def _shown(_logger: WrappedLogger | None, _method: str, entry: EventDict) -> EventDict:
    """As text: the renderer itself writes control characters as they are."""
    return {
        visible(name): visible(value, lines=name == "exception") if isinstance(value, str) else value
        for name, value in entry.items()
    }


def _dumps(_logger: WrappedLogger, _method: str, entry: EventDict) -> str:
    try:
        line = _encode(entry).decode()
    except (TypeError, ValueError):  # half a character, which UTF-8 can't say; a key that is no text
        line = json.dumps(entry, default=str, skipkeys=True)
    if line.isprintable():
        return line
    # JSON escapes of these only C0 by itself, and whoever reads the file with `less` or `tail` is at a terminal, too.
    return _ACTING_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", line)
