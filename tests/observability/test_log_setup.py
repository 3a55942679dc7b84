"""Tests of the log's contents and format."""

import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
import types
import typing
from itertools import count

import pytest
import structlog

from ari_conf.core import effects, events
from ari_conf.core.effects import Target
from ari_conf.core.frozen import Frozen
from ari_conf.observability import log_fields, log_setup, log_writer
from ari_conf.settings import from_environment


@pytest.fixture(autouse=True)
def as_before():
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    yield
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)
    structlog.reset_defaults()
    # A module's logger keeps the configuration of its first entry.
    vars(log_fields.log).pop("bind", None)


def written(write, **environment) -> list[str]:
    stream = io.StringIO()
    log_setup.configure_logging(from_environment(environment), stream)
    write()
    return stream.getvalue().splitlines()


def test_not_on_a_terminal_each_entry_is_one_json_object_with_utc_time():
    [line] = written(lambda: structlog.get_logger().info("call arrived", call_uuid="u1", from_="4915\n1"))
    entry = json.loads(line)
    assert entry.pop("timestamp").endswith("Z")
    assert entry == {"event": "call arrived", "level": "info", "call_uuid": "u1", "from_": "4915\n1"}


def test_as_text_it_is_readable():
    [line] = written(lambda: structlog.get_logger().info("call arrived", call_uuid="u1"), ARI_CONF_LOG_FORMAT="text")
    assert "call arrived" in line and "call_uuid=u1" in line and "{" not in line


def test_secrets_are_omitted_from_every_source():
    def write():
        structlog.get_logger().info("sent", token="t-1", Digits="1234", url="redis://user:p-1@host/0", status=200)

    [line] = written(write)
    assert not [secret for secret in ("t-1", "1234", "p-1") if secret in line]
    assert json.loads(line)["url"] == "redis://***@host/0" and json.loads(line)["status"] == 200


def test_entries_of_libraries_have_the_same_form():
    [line] = written(lambda: logging.getLogger("celery.worker").warning("lost %s", "it"))
    assert json.loads(line)["event"] == "lost it" and json.loads(line)["level"] == "warning"


def test_entries_below_the_level_are_not_written():
    assert written(lambda: structlog.get_logger().info("noise"), ARI_CONF_LOG_LEVEL="warning") == []


def test_an_exception_stays_on_its_line():
    def write():
        try:
            raise ValueError("broken")
        except ValueError:
            structlog.get_logger().exception("event lost")

    [line] = written(write)
    assert "ValueError: broken" in json.loads(line)["exception"]


def test_the_reader_makes_json_readable_and_leaves_the_rest():
    read = log_setup.line_formatter(colours=False)
    line = read('{"event": "call arrived", "call_uuid": "u1", "timestamp": "2026-01-01T10:11:12.345678Z"}')
    assert "10:11:12.345" in line and "call arrived" in line and "call_uuid=u1" in line
    assert read("* Ready to accept connections") == "* Ready to accept connections"


# URLs of users: their queries and logins are secrets.


class URL:
    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


SECRET = "S3CRET"
BARE = "https://***@acme.example/path"


def a_url() -> str:
    return f"https://user:{SECRET}@acme.example/path?token={SECRET}&a='{SECRET}'#rc=1&k={SECRET}"


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        (f"https://acme.example/wait.mp3?token={SECRET}", "https://acme.example/wait.mp3"),
        (f"https://user:{SECRET}@acme.example/", "https://***@acme.example/"),
        (f"https://user:a@b{SECRET}@acme.example:80/", "https://***@acme.example:80/"),
        (f"redis://:{SECRET}@127.0.0.1:6379/0", "redis://***@127.0.0.1:6379/0"),
        (f"https://acme.example/a?with spaces {SECRET}", "https://acme.example/a"),
        (f"https://acme.example/a#{SECRET}", "https://acme.example/a"),
        (f"a callback to https://acme.example/cb?k={SECRET} is late", "a callback to https://acme.example/cb is late"),
        (f"<http://a.example/x?k={SECRET}> to http://b.example/?{SECRET}", "<http://a.example/x to http://b.example/"),
        (f"Max retries exceeded with url: /path?k={SECRET} (Caused", "Max retries exceeded with url: /path (Caused"),
        (f"GET '/path?k={SECRET}'", "GET '/path"),
        ("https://host/a@b", "https://host/a@b"),
        ("is it this/or that?", "is it this/or that?"),
        (f"https://c.example/v1/Account/A/Recording/{SECRET}.mp3", "https://c.example/v1/Account/A/Recording/***"),
    ],
)  # fmt: skip
def test_a_url_is_cut_wherever_it_stands(text: str, bare: str):
    assert log_setup.bare_urls(text) == bare

    def write():
        log = structlog.get_logger()
        log.info(text)
        log.info("in a field", whatever=text, deep={"a": [text, (text,)]}, thing=URL(text))
        logging.getLogger("celery.worker").warning("%s", text)

    for form in ("json", "text"):
        lines = written(write, ARI_CONF_LOG_FORMAT=form)
        assert len(lines) == 3
        assert SECRET not in "".join(lines)


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_url_in_an_exception_is_cut_too(form: str):
    def write():
        for log in (structlog.get_logger(), logging.getLogger("aiohttp.client")):
            try:
                try:
                    raise OSError(f"can't connect to {a_url()}")
                except OSError as error:
                    raise ValueError(f"redirected to {a_url()}, then with url: /next?key={SECRET}") from error
            except ValueError:
                log.exception("an effect broke")

    whole = "\n".join(written(write, ARI_CONF_LOG_FORMAT=form))
    assert SECRET not in whole
    assert whole.count("acme.example") == 4 and whole.count("Traceback") == 4


def logged_things() -> list[type[Frozen]]:
    """Return all types that `log_fields.log_item` may receive."""
    return [*typing.get_args(effects.Effect), *typing.get_args(events.Event)]


def made(kind: type[Frozen]) -> typing.Any:
    """Return an instance with a URL that contains secrets in each field that may be a text."""
    hints, values = typing.get_type_hints(kind), {}
    for name in kind.__struct_fields__:
        hint = hints[name]
        options = set(typing.get_args(hint)) if isinstance(hint, types.UnionType) else {hint}
        values[name] = a_url() if str in options else Target("channel", "c1") if Target in options else 1
    return kind(**values)


def test_no_effect_and_no_event_brings_a_secret_of_a_url_into_the_log():
    """Each type is covered, including ones added later: document, fallback, action, sound, callback, recording."""
    things = [made(kind) for kind in logged_things() if kind is not events.EffectFailed]
    assert len(things) > 40
    things += [
        events.EffectFailed(thing, f"can't: {a_url()}") for thing in things if type(thing).__name__ in dir(effects)
    ]

    def write():
        for thing in things:
            log_fields.log_item("effect", thing, log_fields.fields_of(thing, lambda _: {}))

    lines = written(write, ARI_CONF_LOG_LEVEL="debug")
    assert len(lines) == len(things)
    assert SECRET not in "".join(lines)
    told = {(entry["event"], name) for entry in map(json.loads, lines) for name, text in entry.items() if text == BARE}
    assert {
        ("FetchDocument", "source"), ("CallArrived", "document"), ("FetchSoundDocument", "url"),
        ("PostCallback", "url"), ("StoreRecording", "transcription_url"), ("StoreRecording", "record_url"),
    } <= told  # fmt: skip


# Control characters.

HOSTILE = "\x1b]0;PWNED\x07\x9b31m\u202eevil\x7f\u2066\u2028x"
RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e\u2066]")


@pytest.mark.parametrize("form", ["json", "text"])
def test_control_characters_are_never_written_raw(form: str):
    def write():
        log = structlog.get_logger()
        log.info(HOSTILE, caller_name=HOSTILE, deep=[HOSTILE], thing=types.SimpleNamespace(name=HOSTILE))
        logging.getLogger("celery").warning("%s", HOSTILE)
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            log.exception("it broke", **{HOSTILE: 1})

    whole = "\n".join(written(write, ARI_CONF_LOG_FORMAT=form))
    assert not RAW.search(whole)
    assert whole.count("PWNED") == 7
    if form == "json":
        assert json.loads(whole.splitlines()[0])["caller_name"] == HOSTILE, "nothing is lost"


def test_the_line_formatter_escapes_control_characters():
    read = log_setup.line_formatter(colours=False)
    entry = {"event": HOSTILE, "caller_name": HOSTILE, "exception": f"a\n{HOSTILE}", "deep": [HOSTILE], HOSTILE: 1}
    for line in (
        json.dumps(entry),
        json.dumps(entry, ensure_ascii=False),
        HOSTILE,
        json.dumps([HOSTILE]),
        "{" + HOSTILE,
    ):
        assert not RAW.search(read(line))
    assert "\\x1b]0;PWNED" in read(json.dumps(entry))


# Writing in a separate thread.


class Pipe:
    """Stream whose reader takes nothing until the test tells it to."""

    def __init__(self) -> None:
        self.reading, self.written = (os.fdopen(end, mode) for end, mode in zip(os.pipe(), "rw", strict=True))
        self.got: list[str] = []

    def read(self) -> None:
        self.got = self.reading.read().splitlines()


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(log_writer, "MAX_WAITING_CHARACTERS", 200_000)
    monkeypatch.setattr(log_writer, "CLOSE_TIMEOUT_S", 10.0)


def test_a_reader_that_takes_nothing_stalls_nobody_and_the_order_stays(small):
    pipe = Pipe()
    writer = log_setup.configure_logging(from_environment({}), pipe.written, in_thread=True)
    log = structlog.get_logger()

    def write() -> None:
        for number in range(20_000):  # some MB: far more than a pipe and the writer hold
            (log.info if number % 2 else logging.getLogger("celery").warning)(f"entry {number}")

    logging_thread = threading.Thread(target=write, daemon=True)
    logging_thread.start()
    logging_thread.join(20)
    assert not logging_thread.is_alive(), "the thread waits for the reader"
    reader = threading.Thread(target=pipe.read)
    reader.start()
    assert writer.wait_until_written(10)
    log.info("the last one")
    writer.close()
    pipe.written.close()
    reader.join(10)
    entries = list(map(json.loads, pipe.got))
    numbers = [int(entry["event"].removeprefix("entry ")) for entry in entries if entry["event"].startswith("entry")]
    assert numbers == sorted(set(numbers)), "in order"
    assert 500 < len(numbers) < 20_000
    # After these, a line may be dropped just before the pipe accepts more.
    assert numbers[:500] == list(range(500)), "the oldest lines are kept"
    [dropped] = [entry["count"] for entry in entries if "dropped" in entry["event"]]
    assert dropped == 20_000 - len(numbers)
    assert entries[-1]["event"] == "the last one"


def test_many_threads_write_whole_lines(small):
    pipe = Pipe()
    reader = threading.Thread(target=pipe.read)
    reader.start()
    writer = log_setup.configure_logging(from_environment({}), pipe.written, in_thread=True)
    numbers = count()
    threads = [
        threading.Thread(target=lambda: [structlog.get_logger().info("entry", n=next(numbers)) for _ in range(200)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    pipe.written.close()
    reader.join(10)
    assert sorted(json.loads(line)["n"] for line in pipe.got) == list(range(800))


def test_a_reader_that_has_ended_is_no_error(small):
    pipe = Pipe()
    writer = log_setup.configure_logging(from_environment({}), pipe.written, in_thread=True)
    pipe.reading.close()
    structlog.get_logger().info("nobody reads this")
    assert writer.wait_until_written(10)
    structlog.get_logger().info("nor this")
    writer.close()
    assert not writer._thread.is_alive()


def test_entries_before_the_end_are_written():
    """This holds when an exception ends the process, too."""
    code = (
        "from ari_conf.observability import log_setup\n"
        "from ari_conf.settings import from_environment; import structlog\n"
        "log_setup.configure_logging(from_environment({}), in_thread=True)\n"
        "for n in range(1000): structlog.get_logger().info('entry', n=n)\n"
        "raise SystemExit(3)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 3
    assert [json.loads(line)["n"] for line in ran.stderr.splitlines()] == list(range(1000))
