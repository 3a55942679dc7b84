-- Script: issue wake-ups for partitions that some worker may claim now.
--
-- KEYS: 1 prefix of the queue's keys
-- ARGV: 1 maximum number of wake-ups, 2 milliseconds after which an unanswered wake-up counts as lost
-- Returns the ids of the wake-ups.

local clock = require('ari_conf.common.scripts.clock')
local partitions = require('ari_conf.queues.scripts.partitions')
local wakeups = require('ari_conf.queues.scripts.wakeups')

local queue = KEYS[1]
local max_wakeups, lost_ms = tonumber(ARGV[1]), tonumber(ARGV[2])
local now_ms = clock.now_ms()

partitions.release_due(queue, now_ms)
return wakeups.issue(queue, max_wakeups, now_ms, lost_ms)
