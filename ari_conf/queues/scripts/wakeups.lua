-- Module: wake-ups. A wake-up is an id in the list `wakeups`, from which workers take it; each starts one thread.

local fair_shares = require('ari_conf.queues.scripts.fair_shares')
local keys = require('ari_conf.queues.scripts.keys')

local LAST_EXAMINED = 199 -- index of the last account, and of the last receiver of an account, that is examined

-- Return the number of ready partitions that a worker may claim now.
local function claimable(queue, worker, accounts, now_ms)
  local threads = tonumber(redis.call('HGET', queue..'threads', worker) or 0)
  local shares = fair_shares.compute(queue, worker, threads, now_ms)
  local found = 0
  for _, account in ipairs(accounts) do
    local account_room = shares.of_account(account)
    for _, receiver in ipairs(redis.call('LRANGE', keys.list(queue, 'receivers:'..account), 0, LAST_EXAMINED)) do
      if account_room <= 0 or found >= shares.free then break end
      local ready = redis.call('LLEN', keys.list(queue, 'ready:'..receiver))
      local count = math.min(account_room, math.max(0, shares.of_receiver(account, receiver)), ready)
      found, account_room = found + count, account_room - count
    end
    if found >= shares.free then break end
  end
  return math.min(found, shares.free)
end

-- Return the number of ready partitions that some worker may claim now, minus the wake-ups on their way. Wake-ups that
-- no worker has answered for `lost_ms` milliseconds count as lost.
local function missing(queue, now_ms, lost_ms)
  local accounts, found = redis.call('LRANGE', keys.list(queue, 'accounts'), 0, LAST_EXAMINED), 0
  if #accounts == 0 then return 0 end
  for _, worker in ipairs(redis.call('ZRANGEBYSCORE', queue..'workers', now_ms, '+inf')) do
    found = found + claimable(queue, worker, accounts, now_ms)
  end
  redis.call('ZREMRANGEBYSCORE', queue..'unanswered-wakeups', '-inf', now_ms - lost_ms)
  return found - redis.call('ZCARD', queue..'unanswered-wakeups')
end

-- Issue as many wake-ups as free threads are worth starting now, at most `max_wakeups`, and return their ids.
local function issue(queue, max_wakeups, now_ms, lost_ms)
  local time, issued = redis.call('TIME'), {}
  for n = 1, math.min(max_wakeups, missing(queue, now_ms, lost_ms)) do
    local wakeup_id = time[1]..'.'..time[2]..'.'..n
    redis.call('ZADD', queue..'unanswered-wakeups', now_ms, wakeup_id)
    redis.call('LPUSH', keys.list(queue, 'wakeups'), wakeup_id)
    issued[n] = wakeup_id
  end
  return issued
end

return {issue = issue}
