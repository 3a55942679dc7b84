-- Script: take back the admission of a call of which nothing was dialed. It counts in no limit, and its turn on the trunk
-- is free: an account that is refused could otherwise make the calls of all others wait.
--
-- KEYS: 1 calls, 2 minute of the account, 3 next call of the trunk that gave the turn; then for each trunk: its calls
-- ARGV: 1 call UUID, 2 milliseconds of a turn (0: the trunk gave none)
-- Returns 1, or 0 if the call did not count any more.

local calls, minute, trunk_next = KEYS[1], KEYS[2], KEYS[3]
local call, turn_ms = ARGV[1], tonumber(ARGV[2])
local first_trunk_key = 4

local counted = redis.call('ZREM', calls, call)
redis.call('ZREM', minute, call)
for position = first_trunk_key, #KEYS do
  local trunk_calls = KEYS[position]
  redis.call('ZREM', trunk_calls, call)
end
if counted == 1 and turn_ms > 0 and redis.call('EXISTS', trunk_next) == 1 then
  redis.call('DECRBY', trunk_next, turn_ms)
end
return counted
