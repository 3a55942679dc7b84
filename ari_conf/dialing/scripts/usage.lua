-- Module: what an account's placed calls have used.

local limits = require('ari_conf.dialing.limits')

-- Return the first millisecond of the day (UTC) in which a time is.
local function day_start(ms)
  return ms - ms % limits.DAY_MS
end

-- Add the time from the answer to the end to the day of the end, if that day is today: no other day counts any more.
local function charge(days, answered_ms, ended_ms, now_ms)
  local today = day_start(now_ms)
  if ended_ms < today then return end
  local used_ms = math.max(0, ended_ms - math.max(answered_ms, today))
  local key = days..(today / limits.DAY_MS)
  redis.call('INCRBY', key, used_ms)
  redis.call('PEXPIRE', key, limits.KEPT_MS)
end

-- Charge the calls that have ended, and those whose end nobody has reported in time.
local function settle(calls, answered, ended, days, now_ms)
  local reported = redis.call('HGETALL', ended)
  for index = 1, #reported, 2 do
    local answered_ms, ended_ms = reported[index + 1]:match('^(%d+) (%d+)$')
    if answered_ms then charge(days, tonumber(answered_ms), tonumber(ended_ms), now_ms) end
  end
  redis.call('DEL', ended)
  local expired = redis.call('ZRANGEBYSCORE', calls, '-inf', '('..now_ms, 'WITHSCORES')
  for index = 1, #expired, 2 do
    local call, expired_ms = expired[index], tonumber(expired[index + 1])
    local answered_ms = redis.call('HGET', answered, call)
    if answered_ms then charge(days, tonumber(answered_ms), expired_ms, now_ms) end
    redis.call('HDEL', answered, call)
    redis.call('ZREM', calls, call)
  end
end

-- Return the milliseconds that the account has used today, and the number of its live calls that are answered. A live
-- call counts as it runs.
local function used_today(answered, days, now_ms)
  local today = day_start(now_ms)
  local used_ms = tonumber(redis.call('GET', days..(today / limits.DAY_MS)) or '0')
  local running = redis.call('HVALS', answered)
  for _, answered_ms in ipairs(running) do
    used_ms = used_ms + math.max(0, now_ms - math.max(tonumber(answered_ms), today))
  end
  return used_ms, #running
end

return {settle = settle, used_today = used_today}
