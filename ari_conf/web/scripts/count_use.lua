-- Script: count a use within a window that begins with the first use, by Redis' clock.
--
-- KEYS: 1 counter
-- ARGV: 1 milliseconds of the window
-- Returns {count, milliseconds that are left of the window}.

local counter = KEYS[1]
local window_ms = ARGV[1]

local count = redis.call('INCR', counter)
if count == 1 then redis.call('PEXPIRE', counter, window_ms) end
return {count, redis.call('PTTL', counter)}
