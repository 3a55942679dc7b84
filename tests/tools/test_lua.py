"""The Lua check finds what it promises to find, and nothing in sound files."""

from __future__ import annotations

import pytest

from ari_conf.common.lua import load
from tools import lua

SCRIPT = """\
-- Script: set a key.
--
-- KEYS: 1 the key
-- ARGV: 1 its value
-- Returns nothing.

local clock = require('ari_conf.common.scripts.clock')
local limits = require('ari_conf.queues.limits')

local key, value = KEYS[1], ARGV[1]

local function set(name, ...)
  for i, part in ipairs({...}) do redis.call('SET', name..i, part) end
  for _, field in pairs({a = 1}) do redis.call('DEL', field) end
  repeat
    local left = redis.call('TTL', name)
  until left < 0
  return clock.now_ms() + limits.GIVE_UP_MS
end

set(key, value)
"""


def problems(text: str) -> list[str]:
    return [finding.problem for finding in lua.check("a.lua", text)]


def test_a_sound_script_has_no_finding():
    assert problems(SCRIPT) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("set(key, value)", "set(key, value", "it cannot be parsed"),
        ("set(key, value)", "sett(key, value) set(key)", "'sett' is not defined"),
        ("until left < 0", "until lefd < 0", "'lefd' is not defined"),
        ("name..i, part)", "name..i, parts)", "'parts' is not defined"),
        ("set(key, value)", "result = set(key, value)", "it sets the global 'result'"),
        ("local function set(", "function set(", "it sets the global 'set'"),
        ("for i, part in", "for i, part, more in", "nothing uses the local 'more'"),
        ("local key, value =", "local key, value, more =", "nothing uses the local 'more'"),
        ("local function set(name, ...)", "local function set(name, more, ...)", "nothing uses the local 'more'"),
        ("clock.now_ms()", "clock.now()", "ari_conf.common.scripts.clock has no 'now'"),
        ("limits.GIVE_UP_MS", "limits.GIVE_UP_S", "ari_conf.queues.limits has no 'GIVE_UP_S'"),
        ("set(key, value)", "set(key, value) set(KEYS[1])", "KEYS is read outside a `local` statement"),
        ("return clock.now_ms()", "return ARGV[2]", "ARGV is read outside a `local` statement"),
        ("local function set(name, ...)", "local function set(clock, name, ...)", "the local 'clock' hides a module"),
        ("set(key, value)", "set(key, value) set(clock)", "the module 'clock' is used as a value"),
        ("set(key, value)", "set(key, value) set(clock['now_ms'])", "the module 'clock' is indexed by a value"),
        ("-- Script: set", "-- Sets", 'its first comment does not begin with "Script:" or "Module:"'),
        ("-- KEYS: 1 the key\n", "", "its first comment has no line that begins with 'KEYS:'"),
        ("-- ARGV: 1 its value\n", "", "its first comment has no line that begins with 'ARGV:'"),
        ("-- Returns nothing.\n", "", "its first comment has no line that begins with 'Returns'"),
        ("-- Script: set", "-- Module: set", "a module reads KEYS"),
    ],
)
def test_a_script_that_breaks_a_rule(old: str, new: str, problem: str):
    assert old in SCRIPT
    assert any(found.startswith(problem) for found in problems(SCRIPT.replace(old, new)))


def test_a_finding_has_its_line():
    (finding,) = lua.check("a.lua", SCRIPT.replace("set(key, value)", "set(key, value, missing)"))
    assert str(finding) == "a.lua:21: 'missing' is not defined"


@pytest.mark.parametrize(
    "end", ["", "return {}\n", "return one\n", "return {one = 1 + 1}\n", "return {one = one} -- x\n"]
)
def test_a_module_that_does_not_end_with_what_it_exports(end: str):
    module = "-- Module: one.\n\nlocal one = 1\n"
    assert problems(module + "return {one = one}\n") == []
    assert "a module does not end with `return {name = local, …}`" in problems(module + end)


def test_in_scripts_with_their_modules_every_name_is_defined():
    for path in lua.tracked():
        name = path.removesuffix(".lua").replace("/", ".")
        found = problems(load(name))
        assert not [problem for problem in found if "not defined" in problem or "global" in problem], name


def test_every_file_is_checked():
    assert "ari_conf/queues/scripts/claim.lua" in lua.tracked()
