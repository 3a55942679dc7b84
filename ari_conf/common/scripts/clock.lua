-- Module: the clock of all scripts. It is Redis' own, because the processes that run them may be on any machine.

-- Return epoch milliseconds.
local function now_ms()
  local time = redis.call('TIME')
  local seconds, microseconds = time[1], time[2]
  return seconds * 1000 + math.floor(microseconds / 1000)
end

return {now_ms = now_ms}
