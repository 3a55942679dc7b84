-- Script: append entries to their partitions. Entries without room are dropped, and reported to their accounts.
--
-- KEYS: 1 prefix of the queue's keys
-- ARGV: for each entry: its partition, the entry
-- Returns nothing.

local partitions = require('ari_conf.queues.scripts.partitions')

local queue = KEYS[1]

for i = 1, #ARGV, 2 do
  local partition, entry = ARGV[i], ARGV[i + 1]
  partitions.append(queue, partition, entry)
end
