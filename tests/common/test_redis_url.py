"""Tests of the one Redis URL: how it is read, and the error for one that cannot be read."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ari_conf.common.redis_url import RedisUrl, parse
from ari_conf.errors import SettingsError
from ari_conf.settings import from_environment

SECRET = "hunter2"
CA = {"ssl_ca_certs": "/ca.pem"}


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("redis://127.0.0.1:6380/2", RedisUrl((("127.0.0.1", 6380),), database=2)),
        ("redis://redis.example", RedisUrl((("redis.example", 6379),))),
        ("redis://h/?db=3", RedisUrl((("h", 6379),), database=3)),
        ("redis://:a%23b%2Fc%3Fd%40e%3Af%25@h", RedisUrl((("h", 6379),), password="a#b/c?d@e:f%")),
        ("redis://u%40v:w@[2001:db8::5]:7/0", RedisUrl((("2001:db8::5", 7),), username="u@v", password="w")),
        ("redis://:a+b%20c@h", RedisUrl((("h", 6379),), password="a+b c")),
        ("redis://u:p@w@h", RedisUrl((("h", 6379),), username="u", password="p@w")),
        (
            "rediss://u:p@h/1?ssl_ca_certs=/ca.pem",
            RedisUrl((("h", 6379),), "", "", 1, username="u", password="p", tls=True, options=CA),
        ),
        ("rediss://h?ssl_cert_reqs=required", RedisUrl((("h", 6379),), tls=True)),
        ("unix:///run/r.sock", RedisUrl(path="/run/r.sock")),
        (
            "unix://u:p%2F@/run/redis@1/r%20s.sock?db=4",
            RedisUrl(path="/run/redis@1/r s.sock", database=4, username="u", password="p/"),
        ),
        ("redis+socket:///run/r.sock", RedisUrl(path="/run/r.sock")),
        (
            "redis+sentinel://u:p,q@a:1,b,[::1]:3/my%20master/5",
            RedisUrl((("a", 1), ("b", 26379), ("::1", 3)), "", "my master", 5, username="u", password="p,q"),
        ),
        (
            "rediss+sentinel://a/m?ssl_ca_certs=/ca.pem&sentinel_password=s%26+%20",
            RedisUrl((("a", 26379),), service="m", tls=True, options=CA | {"sentinel_password": "s&+ "}),
        ),
    ],
)
def test_urls_are_parsed(url: str, found: RedisUrl) -> None:
    assert parse(url) == found


WRONG = [
    (SECRET, "must begin with one of redis://"),
    (f"{SECRET}:x@h", "must begin with one of"),
    (f"{SECRET}://h", "must begin with one of"),
    ("redis-cluster://h", "must begin with one of"),
    ("sentinel://h/m", "must begin with one of"),
    (f"redis://:{SECRET}#x@h:6379/0", "percent-encode"),
    (f"redis://:{SECRET}/x@h:6379/0", "percent-encode"),
    (f"redis://:{SECRET}?x@h:6379/0", "percent-encode"),
    (f"redis://:12?{SECRET}@h:6379/0", "percent-encode"),
    (f"redis://:12#{SECRET}", "percent-encode"),
    (f"redis://u:12/{SECRET}", "a database's number"),
    (f"redis://u:p[{SECRET}@h", "percent-encode"),
    (f"redis://h:{SECRET}", "a port from 1 to 65535"),
    ("redis://h:0", "a port from 1 to 65535"),
    ("redis://h:65536", "a port from 1 to 65535"),
    ("redis://h:²", "a port from 1 to 65535"),
    (f"redis://:{SECRET}@", "must name a host"),
    (f"redis://h/{SECRET}", "a database's number"),
    ("redis://h/-1", "a database's number"),
    (f"redis://h/0/{SECRET}", "a database's number"),
    (f"redis://h/?db={SECRET}", "a database's number"),
    (f"redis://h/0?timeout={SECRET}", "not one of db"),
    ("redis://h/0?ssl_ca_certs=/ca.pem", "not one of db"),
    ("rediss://h/0?ssl_cert_reqs=none", "must not turn off"),
    ("rediss://h/0?ssl_cert_reqs=CERT_OPTIONAL", "must not turn off"),
    ("redis://h/?" + "a=1&" * 30, "more than 20 options"),
    (f"unix://:{SECRET}/x@/run/r.sock", "percent-encode"),
    ("unix://run/r.sock", "an absolute path"),
    ("unix://", "an absolute path"),
    ("redis+sentinel://a,b", "must name the service"),
    (f"redis+sentinel://:{SECRET}@a,,b/m", "must name a host"),
    (f"redis+sentinel://:{SECRET}/x@a/m", "percent-encode"),
]


@pytest.mark.parametrize(("url", "said"), WRONG)
def test_an_invalid_url_is_reported_without_the_password(url: str, said: str) -> None:
    for variable in ("ARI_CONF_REDIS_URL", "ARI_CONF_BROKER_URL"):
        with pytest.raises(SettingsError) as told:
            from_environment({variable: url})
        text = str(told.value)
        assert text.startswith(f"settings: {variable}: ") and said in text
        assert SECRET not in text and "\n" not in text


def test_the_shown_url_has_no_password() -> None:
    found = parse(f"redis+sentinel://u:{SECRET}@a/m?sentinel_password={SECRET}")
    assert SECRET not in repr(found) and SECRET not in found.without_secrets()


OURS = ["-m", "ari_conf"]


@pytest.mark.parametrize(
    "command",
    [
        [*OURS, "serve"],
        [*OURS, "doctor"],
        [*OURS, "account", "list"],
        ["-m", "celery", "-A", "tasks", "worker"],
    ],
    ids=["serve", "doctor", "account", "celery"],
)
def test_each_command_reports_an_invalid_url_in_one_line(command: list[str]) -> None:
    environment = os.environ | {"ARI_CONF_REDIS_URL": f"redis://:{SECRET}/word@127.0.0.1:6379/0"}
    ran = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 1 and not ran.stdout
    (line,) = ran.stderr.splitlines()
    assert line.startswith("ari-conf: settings: ARI_CONF_REDIS_URL: is not a valid URL: percent-encode")
    assert SECRET not in line
