-- Module: the fair shares of accounts and receivers in the threads of one worker.
--
-- An account gets three quarters of what the other accounts leave. A receiver gets seven eighths of what the account's
-- other receivers leave. However many threads a flood could use, some stay free for the next account and receiver.

local failures = require('ari_conf.queues.scripts.failures')
local keys = require('ari_conf.queues.scripts.keys')

-- Return the shares in a worker's threads, as a table:
--   free: the number of free threads
--   of_account(account): the number of threads that the account may take now
--   of_receiver(account, receiver): the same for a receiver
local function compute(queue, worker, threads, now_ms)
  local claimed, by_account, by_receiver = redis.call('HKEYS', queue..'claims:'..worker), {}, {}
  for _, partition in ipairs(claimed) do
    local account, receiver = keys.account_of(partition), keys.receiver_of(partition)
    by_account[account] = (by_account[account] or 0) + 1
    by_receiver[receiver] = (by_receiver[receiver] or 0) + 1
  end

  -- Return the account's share, and how many of its threads are in use.
  local function account_share(account)
    local used = by_account[account] or 0
    local left_by_others = threads - #claimed + used
    return math.max(1, math.floor(left_by_others * 3 / 4)), used
  end

  local function of_account(account)
    local share, used = account_share(account)
    return share - used
  end

  local function of_receiver(account, receiver)
    local share, used_by_account = account_share(account)
    local used = by_receiver[receiver] or 0
    local left_by_others = share - used_by_account + used
    local max_requests = failures.allowed(queue, account, receiver, now_ms)
    return math.min(math.max(1, math.floor(left_by_others * 7 / 8)), max_requests) - used
  end

  return {free = math.max(0, threads - #claimed), of_account = of_account, of_receiver = of_receiver}
end

return {compute = compute}
