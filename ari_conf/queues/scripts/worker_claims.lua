-- Module: the release of what workers have claimed.

local partitions = require('ari_conf.queues.scripts.partitions')

-- Make claims of a worker ready whose claim number passes the test; return their number.
local function release(queue, worker, is_released)
  local claims, released = redis.call('HGETALL', queue..'claims:'..worker), 0
  for i = 1, #claims, 2 do
    local partition, claim_number = claims[i], claims[i + 1]
    if is_released(claim_number) then
      redis.call('HDEL', queue..'claims:'..worker, partition)
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
  local released = release(queue, worker, always)
  redis.call('ZREM', queue..'workers', worker)
  redis.call('HDEL', queue..'threads', worker)
  redis.call('HDEL', queue..'health', worker)
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

return {release = release, remove = remove, remove_expired = remove_expired}
