-- Module: the claim of the next entry for a thread of a worker.

local failures = require('ari_conf.queues.scripts.failures')
local fair_shares = require('ari_conf.queues.scripts.fair_shares')
local keys = require('ari_conf.queues.scripts.keys')
local limits = require('ari_conf.queues.limits')

-- Return the first ready partition of a receiver, and take it off the list; nil without one. Partitions without entries,
-- and keys that are no partitions, are skipped.
local function pop_ready(queue, receiver)
  while true do
    local partition = redis.call('LPOP', keys.list(queue, 'ready:'..receiver))
    if not partition then return nil end
    local is_list, entry = pcall(redis.call, 'LINDEX', queue..'partition:'..partition, 0)
    if is_list and entry then return partition end
  end
end

-- Return the next partition of an account. Its receivers rotate, so that each gets its turn.
local function next_of_account(queue, account, shares)
  local receivers = keys.list(queue, 'receivers:'..account)
  local found
  if shares.of_account(account) > 0 then
    for _ = 1, math.min(redis.call('LLEN', receivers), limits.MAX_RECEIVERS_PER_CLAIM) do
      local receiver = redis.call('LPOP', receivers)
      if shares.of_receiver(account, receiver) > 0 then found = pop_ready(queue, receiver) end
      if redis.call('EXISTS', queue..'ready:'..receiver) == 1 then redis.call('RPUSH', receivers, receiver) end
      if found then break end
    end
  end
  if redis.call('EXISTS', receivers) == 1 then redis.call('RPUSH', queue..'accounts', account) end
  return found
end

-- Claim the next partition under a claim number. Return {partition, its first entry, 1 if its receiver is given up or
-- 0}; false if the worker may claim nothing now. Accounts rotate as well.
local function claim_next(queue, worker, threads, claim_number, now_ms)
  local shares = fair_shares.compute(queue, worker, threads, now_ms)
  if shares.free == 0 then return false end
  for _ = 1, redis.call('LLEN', keys.list(queue, 'accounts')) do
    local account = redis.call('LPOP', queue..'accounts')
    local partition = next_of_account(queue, account, shares)
    if partition then
      redis.call('HSET', queue..'claims:'..worker, partition, claim_number)
      local entry = redis.call('LINDEX', queue..'partition:'..partition, 0)
      local _, given_up = failures.allowed(queue, account, keys.receiver_of(partition), now_ms)
      return {partition, entry, given_up and 1 or 0}
    end
  end
  return false
end

return {claim_next = claim_next}
