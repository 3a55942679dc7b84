-- Script: queue the result of an asynchronous call. Only one process sends it. If Redis refuses it, the script ends
-- there, and the pending result remains.
--
-- KEYS: 1 prefix of the callback queue's keys, 2 pending results
-- ARGV: 1 API id, 2 partition, 3 callback with the result
-- Returns nothing.

local partitions = require('ari_conf.queues.scripts.partitions')

local callbacks, pending_key = KEYS[1], KEYS[2]
local api_id, partition, entry = ARGV[1], ARGV[2], ARGV[3]

if redis.call('HEXISTS', pending_key, api_id) == 1 then
  partitions.append(callbacks, partition, entry)
  redis.call('HDEL', pending_key, api_id)
end
