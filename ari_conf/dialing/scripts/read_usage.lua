-- Script: what an account's placed calls have used today.
--
-- KEYS: 1 calls, 2 answered, 3 ended, 4 prefix of the days of the account
-- ARGV: 1 maximum minutes per day
-- Returns {milliseconds that are left of them, not below 0; number of live calls that are answered}.

local clock = require('ari_conf.common.scripts.clock')
local limits = require('ari_conf.dialing.limits')
local usage = require('ari_conf.dialing.scripts.usage')

local calls, answered, ended, days = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local max_ms = tonumber(ARGV[1]) * limits.MINUTE_MS

local now_ms = clock.now_ms()
usage.settle(calls, answered, ended, days, now_ms)
local used_ms, running = usage.used_today(answered, days, now_ms)
return {math.max(0, max_ms - used_ms), running}
