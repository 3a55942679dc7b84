-- Script: delete partitions with their entries. Of a partition that a worker has claimed, the first entry stays: the
-- worker is attempting it, and settles it.
--
-- KEYS: 1 prefix of the queue's keys
-- ARGV: partitions
-- Returns the number of partitions that were claimed.

local backlog = require('ari_conf.queues.scripts.backlog')

local queue = KEYS[1]

local function is_claimed(partition)
  for _, worker in ipairs(redis.call('ZRANGE', queue..'workers', 0, -1)) do
    if redis.call('HEXISTS', queue..'claims:'..worker, partition) == 1 then return true end
  end
  return false
end

local claimed = 0
for _, partition in ipairs(ARGV) do
  local entries = queue..'partition:'..partition
  local count, bytes = redis.call('LLEN', entries), redis.call('MEMORY', 'USAGE', entries) or 0
  if is_claimed(partition) then
    claimed = claimed + 1
    redis.call('LTRIM', entries, 0, 0)
    count = count - 1
    bytes = bytes - (redis.call('MEMORY', 'USAGE', entries) or 0)
  else
    redis.call('UNLINK', entries)
    redis.call('ZREM', queue..'delayed', partition)
  end
  if count > 0 then backlog.adjust(queue, partition, -count, -bytes) end
end
return claimed
