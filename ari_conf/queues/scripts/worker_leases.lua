-- Module: the leases of workers. The claims of a worker without a lease become ready for others.

local partitions = require('ari_conf.queues.scripts.partitions')

local function renew(queue, worker, threads, lease_ms, now_ms)
  redis.call('ZADD', queue..'workers', now_ms + lease_ms, worker)
  redis.call('HSET', queue..'threads', worker, threads)
end

-- Renew the lease if fewer than `margin_ms` milliseconds are left of it.
local function renew_if_short(queue, worker, threads, lease_ms, margin_ms, now_ms)
  local until_ms = tonumber(redis.call('ZSCORE', queue..'workers', worker) or 0)
  if until_ms - now_ms < margin_ms then renew(queue, worker, threads, lease_ms, now_ms) end
end

-- Make claims of a worker ready whose claim number passes the test; return their number.
local function release_claims(queue, worker, is_released)
  local claims, released = redis.call('HGETALL', queue..'held:'..worker), 0
  for i = 1, #claims, 2 do
    local partition, claim_number = claims[i], claims[i + 1]
    if is_released(claim_number) then
      redis.call('HDEL', queue..'held:'..worker, partition)
      partitions.make_ready(queue, partition)
      released = released + 1
    end
  end
  return released
end

local function always()
  return true
end

-- Remove a worker, and make all its claims ready; return their number.
local function remove(queue, worker)
  local released = release_claims(queue, worker, always)
  redis.call('ZREM', queue..'workers', worker)
  redis.call('HDEL', queue..'threads', worker)
  return released
end

-- Remove all workers without a lease; return the number of their claims.
local function remove_expired(queue, now_ms)
  local released = 0
  for _, worker in ipairs(redis.call('ZRANGEBYSCORE', queue..'workers', '-inf', now_ms)) do
    released = released + remove(queue, worker)
  end
  return released
end

return {
  renew = renew,
  renew_if_short = renew_if_short,
  release_claims = release_claims,
  remove = remove,
  remove_expired = remove_expired,
}
