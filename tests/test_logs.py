"""What gets into the log, and in which form."""

import io
import json
import logging

import pytest
import structlog

from ari_conf import logs
from ari_conf.settings import from_environment


@pytest.fixture(autouse=True)
def as_before():
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    yield
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)
    structlog.reset_defaults()


def written(write, **environment) -> list[str]:
    stream = io.StringIO()
    logs.set_up(from_environment(environment), stream)
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


def test_secrets_are_left_out_whoever_gives_them():
    def write():
        structlog.get_logger().info("sent", token="t-1", Digits="1234", url="redis://user:p-1@host/0", status=200)

    [line] = written(write)
    assert not [secret for secret in ("t-1", "1234", "p-1") if secret in line]
    assert json.loads(line)["url"] == "redis://***@host/0" and json.loads(line)["status"] == 200


def test_an_at_sign_further_on_in_a_url_is_no_login():
    [line] = written(lambda: structlog.get_logger().info("sent", url="https://host/a?mail=x@y"))
    assert json.loads(line)["url"] == "https://host/a?mail=x@y"


def test_entries_of_libraries_have_the_same_form():
    [line] = written(lambda: logging.getLogger("celery.worker").warning("lost %s", "it"))
    assert json.loads(line)["event"] == "lost it" and json.loads(line)["level"] == "warning"


def test_what_is_below_the_level_is_not_written():
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
    read = logs.reader(colours=False)
    line = read('{"event": "call arrived", "call_uuid": "u1", "timestamp": "2026-01-01T10:11:12.345678Z"}')
    assert "10:11:12.345" in line and "call arrived" in line and "call_uuid=u1" in line
    assert read("* Ready to accept connections") == "* Ready to accept connections"
