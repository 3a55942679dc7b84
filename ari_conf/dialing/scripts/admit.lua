-- Script: admit a call that is to be placed, or say which limit refuses it. A refused call counts nowhere.
--
-- KEYS: 1 calls, 2 minute, 3 answered, 4 ended, 5 prefix of the days of the account; then for each trunk, in the order in
--       which they are tried: its calls, its next call
-- ARGV: 1 call UUID, 2 maximum calls at the same time, 3 maximum calls per minute, 4 maximum minutes per day,
--       5 wanted seconds of the call; then for each trunk: its maximum calls at the same time, calls per second (0: no
--       limit)
-- Returns {'', seconds that the call may last, milliseconds until it may be dialed, positions of the trunks that may be
--   tried, from 1} or {name of the limit}.
--
-- A call that is admitted again under its UUID counts once.

local clock = require('ari_conf.common.scripts.clock')
local limits = require('ari_conf.dialing.limits')
local usage = require('ari_conf.dialing.scripts.usage')

local calls, minute, answered, ended, days = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local call, max_calls, max_per_minute = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local max_ms, wanted_s = tonumber(ARGV[4]) * limits.MINUTE_MS, tonumber(ARGV[5])
local first_trunk_key, first_trunk_limit = 6, 6

local now_ms = clock.now_ms()

local function count_others(set)
  return redis.call('ZCARD', set) - (redis.call('ZSCORE', set, call) and 1 or 0)
end

-- Return the trunks that have room: {position, key of its calls, key of its next call, calls per second}.
local function trunks_with_room()
  local found = {}
  for position = 1, (#KEYS - first_trunk_key + 1) / 2 do
    local trunk_calls = KEYS[first_trunk_key + 2 * position - 2]
    local trunk_next = KEYS[first_trunk_key + 2 * position - 1]
    local most = tonumber(ARGV[first_trunk_limit + 2 * position - 2])
    local per_second = tonumber(ARGV[first_trunk_limit + 2 * position - 1])
    redis.call('ZREMRANGEBYSCORE', trunk_calls, '-inf', '('..now_ms)
    if most == 0 or count_others(trunk_calls) < most then
      found[#found + 1] = {position, trunk_calls, trunk_next, per_second}
    end
  end
  return found
end

usage.settle(calls, answered, ended, days, now_ms)
if count_others(calls) >= max_calls then return {'calls'} end
redis.call('ZREMRANGEBYSCORE', minute, '-inf', now_ms - limits.MINUTE_MS)
if count_others(minute) >= max_per_minute then return {'minute'} end
local left_s = math.floor((max_ms - usage.used_today(answered, days, now_ms)) / 1000)
if left_s < 1 then return {'day'} end
local trunks = trunks_with_room()
if #trunks == 0 then return {'trunks'} end

local _, trunk_calls, trunk_next, per_second = unpack(trunks[1])
local dial_ms = now_ms
if per_second > 0 then
  dial_ms = math.max(now_ms, tonumber(redis.call('GET', trunk_next) or '0'))
  if dial_ms - now_ms > limits.MAX_DELAY_MS then return {'trunks'} end
  redis.call('SET', trunk_next, dial_ms + math.ceil(1000 / per_second), 'PX', 2 * limits.MAX_DELAY_MS)
end
local expires_ms = dial_ms + limits.PENDING_MS
redis.call('ZADD', calls, expires_ms, call)
redis.call('ZADD', trunk_calls, expires_ms, call)
redis.call('ZADD', minute, now_ms, call)
redis.call('PEXPIRE', calls, limits.KEPT_MS)
redis.call('PEXPIRE', trunk_calls, limits.KEPT_MS)
redis.call('PEXPIRE', minute, limits.MINUTE_MS)

local reply = {'', math.min(wanted_s, left_s), dial_ms - now_ms}
for _, trunk in ipairs(trunks) do reply[#reply + 1] = trunk[1] end
return reply
