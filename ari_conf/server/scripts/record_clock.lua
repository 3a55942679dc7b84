-- Script: record the server's clock beside Redis' own.
--
-- KEYS: 1 record of the clock
-- ARGV: 1 the server's clock, 2 boot time, 3 boot within which the boot time counts. Times are in milliseconds.
-- Returns Redis' clock.

local clock = require('ari_conf.common.scripts.clock')

local record_key = KEYS[1]
local server_ms, boottime_ms, boot = ARGV[1], ARGV[2], ARGV[3]
local now_ms = clock.now_ms()

local found = redis.call('TYPE', record_key).ok
if found ~= 'hash' and found ~= 'none' then redis.call('DEL', record_key) end
redis.call('HSET', record_key, 'server_ms', server_ms, 'boottime_ms', boottime_ms, 'boot', boot, 'redis_ms', now_ms)
return now_ms
