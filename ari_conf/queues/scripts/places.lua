-- Module: the rebuilding of the places of partitions.
--
-- Each partition with entries is in exactly one place. If a key for the places was overwritten, all of them are rebuilt
-- from what is left: a partition that no worker holds and that does not wait is ready. That scans every key, once. Keys
-- of lists are checked where they are used (`keys.list`), the others here.

local keys = require('ari_conf.queues.scripts.keys')
local partitions = require('ari_conf.queues.scripts.partitions')

local TYPES = {
  accounts = 'list', delayed = 'zset', workers = 'zset', threads = 'hash', health = 'hash',
  wakeups = 'list', ['unanswered-wakeups'] = 'zset',
}

-- Return true if a key of the queue has a wrong type now, or had one since the last call.
local function is_damaged(queue)
  if redis.call('DEL', queue..'damaged') == 1 then return true end
  for name, expected in pairs(TYPES) do
    if not keys.has_type(queue..name, expected) then return true end
  end
  for _, worker in ipairs(redis.call('ZRANGE', queue..'workers', 0, -1)) do
    if not keys.has_type(queue..'claims:'..worker, 'hash') then return true end
  end
  return false
end

local function for_each_key(pattern, act)
  local cursor = '0'
  repeat
    local answer = redis.call('SCAN', cursor, 'MATCH', pattern, 'COUNT', 1000)
    cursor = answer[1]
    for _, key in ipairs(answer[2]) do act(key) end
  until cursor == '0'
end

local function delete(key)
  redis.call('DEL', key)
end

-- Return the set of partitions that are claimed or wait.
local function placed_partitions(queue)
  local placed = {}
  for_each_key(queue..'claims:*', function(key)
    if not keys.has_type(key, 'hash') then delete(key) end
    for _, partition in ipairs(redis.call('HKEYS', key)) do placed[partition] = true end
  end)
  for _, partition in ipairs(redis.call('ZRANGE', queue..'delayed', 0, -1)) do placed[partition] = true end
  return placed
end

-- Return the set of all partitions with entries.
local function all_partitions(queue)
  local found, prefix = {}, queue..'partition:'
  for_each_key(prefix..'*', function(key)
    if keys.has_type(key, 'list') then found[key:sub(#prefix + 1)] = true else delete(key) end
  end)
  return found
end

local function rebuild(queue)
  for name, expected in pairs(TYPES) do
    if not keys.has_type(queue..name, expected) then delete(queue..name) end
  end
  delete(queue..'accounts')
  for_each_key(queue..'receivers:*', delete)
  for_each_key(queue..'ready:*', delete)
  local placed = placed_partitions(queue)
  for partition in pairs(all_partitions(queue)) do
    if not placed[partition] then partitions.make_ready(queue, partition) end
  end
end

-- Rebuild the places if a key of the queue has a wrong type.
local function repair(queue)
  if is_damaged(queue) then rebuild(queue) end
end

return {repair = repair}
