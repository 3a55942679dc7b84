-- Script: look at the lease of another process, and record that this standby has looked.
--
-- KEYS: 1 the owner's fencing token, 2 lease, 3 standbys
-- ARGV: 1 the standby's description
-- Returns {fencing token, heartbeat, process identity, realm} of the owner. Without a token or heartbeat it is '-';
--   the other two are then ''.

local clock = require('ari_conf.common.scripts.clock')
local lease_repair = require('ari_conf.ownership.scripts.lease_repair')

local owner_key, lease_key, standby_key = KEYS[1], KEYS[2], KEYS[3]
local standby = ARGV[1]
local STANDBY_TTL_MS = 10000

lease_repair.repair(owner_key, lease_key)
if not pcall(redis.call, 'HSET', standby_key, standby, clock.now_ms()) then redis.call('DEL', standby_key) end
redis.call('PEXPIRE', standby_key, STANDBY_TTL_MS)
local heartbeat, identity, realm = unpack(redis.call('HMGET', lease_key, 'heartbeat', 'identity', 'realm'))
return {redis.call('GET', owner_key) or '-', heartbeat or '-', identity or '', realm or ''}
