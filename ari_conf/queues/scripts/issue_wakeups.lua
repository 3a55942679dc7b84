-- Script: issue wake-ups for partitions that some worker may claim now, and count them as on their way.
--
-- KEYS: 1 prefix of the queue's keys
-- ARGV: 1 maximum number of wake-ups, 2 milliseconds after which an unanswered wake-up counts as lost
-- Returns the ids of the wake-ups.

local clock = require('ari_conf.common.scripts.clock')
local free_capacity = require('ari_conf.queues.scripts.free_capacity')
local partitions = require('ari_conf.queues.scripts.partitions')

local queue = KEYS[1]
local max_wakeups, lost_ms = tonumber(ARGV[1]), tonumber(ARGV[2])
local now_ms = clock.now_ms()

partitions.release_due(queue, now_ms)
local issued = {}
for i = 1, math.min(max_wakeups, free_capacity.missing_wakeups(queue, now_ms, lost_ms)) do
  local wakeup_id = string.format('%.0f', redis.call('INCR', queue..'token'))
  redis.call('ZADD', queue..'tokens', now_ms, wakeup_id)
  issued[i] = wakeup_id
end
return issued
