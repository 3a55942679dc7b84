-- Script: move dead letters to the ends of their partitions. One that no longer exists, or for which there is no room,
-- is left out.
--
-- KEYS: 1 prefix of the queue's keys
-- ARGV: 1 account, 2 milliseconds between the starts of partitions that were empty, 3 number of dead letters that were
--       moved before, 4 and following: for each dead letter its id, the entry to append
-- Returns the number of dead letters that were moved.

local partitions = require('ari_conf.queues.scripts.partitions')

local queue = KEYS[1]
local account, pace_ms, moved_before = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

-- Return the partition of a dead letter; nil if there is no such dead letter.
local function partition_of(id)
  local found = redis.call('XRANGE', queue..'dead-letters:'..account, id, id)
  if not found[1] then return nil end
  local fields = found[1][2]
  return fields[2]
end

local moved = 0
for i = 4, #ARGV, 2 do
  local id, entry = ARGV[i], ARGV[i + 1]
  local partition = partition_of(id)
  if partition and partitions.append(queue, partition, entry, pace_ms * (moved_before + moved)) then
    redis.call('XDEL', queue..'dead-letters:'..account, id)
    moved = moved + 1
  end
end
return moved
