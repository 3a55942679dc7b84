-- Module: the backlog, which is the number and bytes of undelivered callbacks of each account. It is bounded, so that no
-- account takes more of Redis than its share. Other queues have no bounds: their entries stand for files on a disk, and
-- only ari_conf adds to them.
--
-- The count may be wrong if entries were removed by hand. If there seems to be no room left, they are counted again.

local keys = require('ari_conf.queues.scripts.keys')
local limits = require('ari_conf.queues.limits')

local BOUNDED_QUEUE = 'ari_conf:callbacks:'
local MAX_ACCOUNT_BYTES = limits.MAX_ACCOUNT_MB * 1024 * 1024

local function increase(queue, account, entries, bytes)
  if redis.call('HINCRBY', queue..'entries', account, entries) <= 0 then
    redis.call('HDEL', queue..'entries', account)
    redis.call('HDEL', queue..'bytes', account)
  else
    redis.call('HINCRBY', queue..'bytes', account, bytes)
  end
end

-- Add to the count of the partition's account; negative numbers are taken off.
local function adjust(queue, partition, entries, bytes)
  if queue ~= BOUNDED_QUEUE then return end
  if not pcall(increase, queue, keys.account_of(partition), entries, bytes) then
    -- The counters have a wrong type: reset them, so that no callback is lost.
    redis.call('DEL', queue..'entries', queue..'bytes')
  end
end

local function recount(queue, account)
  local may_count = redis.call('SET', queue..'recounted:'..account, 1, 'NX', 'PX', limits.RECOUNT_INTERVAL_MS)
  if not may_count then return end
  local entries, bytes, prefix = 0, 0, account..':'
  local function count(partitions)
    for _, partition in ipairs(partitions) do
      if partition:sub(1, #prefix) == prefix then
        entries = entries + redis.call('LLEN', queue..'partition:'..partition)
        bytes = bytes + (redis.call('MEMORY', 'USAGE', queue..'partition:'..partition) or 0)
      end
    end
  end
  for _, receiver in ipairs(redis.call('LRANGE', keys.list(queue, 'receivers:'..account), 0, -1)) do
    count(redis.call('LRANGE', keys.list(queue, 'ready:'..receiver), 0, -1))
  end
  for _, worker in ipairs(redis.call('ZRANGE', queue..'workers', 0, -1)) do
    count(redis.call('HKEYS', queue..'claims:'..worker))
  end
  count(redis.call('ZRANGE', queue..'delayed', 0, -1))
  redis.call('HSET', queue..'entries', account, entries)
  redis.call('HSET', queue..'bytes', account, bytes)
end

-- Return the reason why there is no room for an entry in its partition; nil if there is room.
local function refusal(queue, partition, entry)
  if queue ~= BOUNDED_QUEUE then return nil end
  if redis.call('LLEN', queue..'partition:'..partition) >= limits.MAX_PARTITION_ENTRIES then
    return limits.MAX_PARTITION_ENTRIES..' callbacks of one conference to one URL wait already'
  end
  local account = keys.account_of(partition)
  local function is_full()
    local entries = tonumber(redis.call('HGET', queue..'entries', account) or 0)
    local bytes = tonumber(redis.call('HGET', queue..'bytes', account) or 0)
    return entries >= limits.MAX_ACCOUNT_ENTRIES or bytes + #entry > MAX_ACCOUNT_BYTES
  end
  local is_readable, seems_full = pcall(is_full)
  if not is_readable or not seems_full then return nil end
  recount(queue, account)
  if not is_full() then return nil end
  return limits.MAX_ACCOUNT_ENTRIES..' callbacks of this account, or '..limits.MAX_ACCOUNT_MB..' MB, wait already'
end

return {adjust = adjust, refusal = refusal}
