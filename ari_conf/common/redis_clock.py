"""Clock of Redis scripts: Redis' own, because the processes that run them may be on any machine."""

CLOCK = """
local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
"""
"""Lua: `clock()` returns epoch milliseconds by Redis' own clock."""
