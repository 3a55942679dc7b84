"""Lua scripts: they are put together with their modules, and Redis accepts them."""

from __future__ import annotations

import configparser
from fnmatch import fnmatch
from pathlib import Path

import pytest

import ari_conf
from ari_conf.common import lua
from ari_conf.queues import limits
from tests.redis import RedisServer

PACKAGE = Path(ari_conf.__file__).parent
FILES = sorted(PACKAGE.glob("**/*.lua"))
NAMES = [".".join(("ari_conf", *file.relative_to(PACKAGE).with_suffix("").parts)) for file in FILES]
SCRIPTS = [name for name in NAMES if lua.source(name).startswith("-- Script:")]


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return a dictionary whose texts stand for files."""
    found: dict[str, str] = {}
    monkeypatch.setattr(lua, "source", found.__getitem__)
    lua.load.cache_clear()
    yield found
    lua.load.cache_clear()


def test_redis_accepts_every_script(redis_server: RedisServer):
    assert SCRIPTS
    for name in SCRIPTS:
        redis_server.client.script_load(lua.load(name))


def test_modules_stand_before_what_uses_them_and_once(sources: dict[str, str], redis_server: RedisServer):
    sources["a.scripts.one"] = "local steps = {}\nreturn {steps = steps}\n"
    sources["a.scripts.two"] = (
        "local one = require('a.scripts.one')\nlocal steps = one.steps\nsteps[#steps + 1] = 'two'\n"
        "return {steps = steps}\n"
    )
    sources["a.scripts.all"] = (
        "local two = require('a.scripts.two')\nlocal one = require('a.scripts.one')\n"
        "one.steps[#one.steps + 1] = 'all'\nreturn two.steps\n"
    )
    assert redis_server.client.eval(lua.load("a.scripts.all"), 0) == [b"two", b"all"]


def test_locals_of_a_module_are_its_own(sources: dict[str, str], redis_server: RedisServer):
    sources["a.scripts.one"] = "local value = 1\nlocal function get() return value end\nreturn {get = get}\n"
    sources["a.scripts.all"] = (
        "local one = require('a.scripts.one')\nlocal value, other = 2, {one = {get = 3}}\n"
        "return {one.get(), value, other.one.get, 'x'..one.get()}\n"
    )
    assert redis_server.client.eval(lua.load("a.scripts.all"), 0) == [1, 2, 3, b"x1"]


def test_a_python_module_stands_for_its_constants(sources: dict[str, str], redis_server: RedisServer):
    sources["a.scripts.all"] = (
        "local limits = require('ari_conf.queues.limits')\nreturn limits.MAX_ACCOUNT_FAILURES..''\n"
    )
    assert redis_server.client.eval(lua.load("a.scripts.all"), 0) == str(limits.MAX_ACCOUNT_FAILURES).encode()


def test_comments_are_not_sent(sources: dict[str, str]):
    sources["a.scripts.all"] = "-- Script: a.\n\n  -- why\nreturn '-- no comment' -- nor this\n"
    assert lua.load("a.scripts.all") == "return '-- no comment' -- nor this\n"


@pytest.mark.parametrize(
    "use", ["require('a.scripts.two')\nreturn one.steps\n", "require('a.scripts.one')\nreturn one.stops\n"]
)
def test_a_module_or_function_that_does_not_exist_is_an_error(sources: dict[str, str], use: str):
    sources["a.scripts.one"] = "local steps = {}\nreturn {steps = steps}\n"
    sources["a.scripts.all"] = f"local one = {use}"
    with pytest.raises(KeyError):
        lua.load("a.scripts.all")


def test_a_wheel_has_every_file():
    setup = configparser.ConfigParser()
    setup.read(PACKAGE.parent / "setup.cfg")
    patterns = setup["options.package_data"]["ari_conf"].split()
    left_out = [
        path for file in FILES if not any(fnmatch(path := str(file.relative_to(PACKAGE)), each) for each in patterns)
    ]
    assert FILES and not left_out
