-- Module: recent failures of receivers, and of accounts.
--
-- They are stored as 'UNTIL SINCE', in epoch milliseconds. UNTIL is the time when all of them are forgotten, one request
-- after another; SINCE is the time of the last success, or else of the first failure.
--
-- A receiver with more than half of MAX_RECEIVER_FAILURES gets one request at a time. Above MAX_RECEIVER_FAILURES, or
-- above the limit of its account, it rests until it may have another one. So its return is noticed, and retries do not
-- flood a server.

local keys = require('ari_conf.queues.scripts.keys')
local limits = require('ari_conf.queues.limits')

local MAX_RECEIVER_MS = limits.MAX_RECEIVER_FAILURES * limits.RECEIVER_FAILURE_MS
local MAX_ACCOUNT_MS = limits.MAX_ACCOUNT_FAILURES * limits.ACCOUNT_FAILURE_MS
local HEADROOM = 10 -- failures that are counted beyond the maximum

-- Return UNTIL and SINCE of a receiver or an account; zeros without failures.
local function read(queue, name)
  local is_readable, stored = pcall(redis.call, 'GET', queue..'failing:'..name)
  if not is_readable or not stored then return 0, 0 end
  local until_ms, since_ms = stored:match('^(%d+) (%d+)$')
  return tonumber(until_ms) or 0, tonumber(since_ms) or 0
end

local function add(queue, name, max_failures, failure_ms, count, now_ms)
  local until_ms, since_ms = read(queue, name)
  if until_ms == 0 and count <= 0 then return end
  local latest_ms = now_ms + (max_failures + HEADROOM) * failure_ms
  until_ms = math.min(math.max(until_ms, now_ms) + count * failure_ms, latest_ms)
  if until_ms <= now_ms then
    redis.call('DEL', queue..'failing:'..name)
    return
  end
  if count < 0 or since_ms == 0 then since_ms = now_ms end
  local text = string.format('%.0f %.0f', until_ms, since_ms)
  redis.call('SET', queue..'failing:'..name, text, 'PX', string.format('%.0f', until_ms - now_ms))
end

-- Add failed requests to the count of a partition's receiver and account; a negative number is taken off.
local function record(queue, partition, count, now_ms)
  if count == 0 then return end
  local receiver, account = keys.receiver_of(partition), keys.account_of(partition)
  add(queue, receiver, limits.MAX_RECEIVER_FAILURES, limits.RECEIVER_FAILURE_MS, count, now_ms)
  add(queue, account, limits.MAX_ACCOUNT_FAILURES, limits.ACCOUNT_FAILURE_MS, count, now_ms)
end

-- Return the number of concurrent requests that a receiver is allowed, and true if it is given up: nothing is sent to
-- it, and its callbacks do not wait for it.
local function allowed(queue, account, receiver, now_ms)
  local until_ms, since_ms = read(queue, receiver)
  local left_ms = until_ms - now_ms
  if left_ms <= 0 then return math.huge, false end
  local rests = left_ms > MAX_RECEIVER_MS or read(queue, account) - now_ms > MAX_ACCOUNT_MS
  if not rests then return left_ms > MAX_RECEIVER_MS / 2 and 1 or math.huge, false end
  if now_ms - since_ms > limits.GIVE_UP_MS then return math.huge, true end
  return 0, false
end

return {record = record, allowed = allowed}
