-- Script: read the clock that a server has recorded.
--
-- KEYS: 1 record of the clock
-- Returns {Redis' clock now, and as recorded: the server's clock, boot time, boot, Redis' clock}. What was not recorded
--   is ''. Times are in milliseconds.

local clock = require('ari_conf.common.scripts.clock')

local record_key = KEYS[1]

local is_hash, record = pcall(redis.call, 'HMGET', record_key, 'server_ms', 'boottime_ms', 'boot', 'redis_ms')
if not is_hash then record = {} end
return {clock.now_ms(), record[1] or '', record[2] or '', record[3] or '', record[4] or ''}
