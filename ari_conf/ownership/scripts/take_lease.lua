-- Script: take the lease, if it is as this standby has seen it.
--
-- KEYS: 1 the owner's fencing token, 2 lease, 3 version of the state
-- ARGV: 1 fencing token that was seen, 2 heartbeat that was seen ('-' stands for none), 3 random word,
--       4 process identity of the new owner, 5 version of the state that it reads
-- Returns {number of the lease, realm}; nil if the lease has changed, or the state has another version. The new fencing token is NUMBER.WORD.

local clock = require('ari_conf.common.scripts.clock')
local lease_repair = require('ari_conf.ownership.scripts.lease_repair')

local owner_key, lease_key, version_key = KEYS[1], KEYS[2], KEYS[3]
local seen_token, seen_heartbeat, word, identity, version = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

if redis.call('GET', version_key) ~= version then return false end
lease_repair.repair(owner_key, lease_key)
if (redis.call('GET', owner_key) or '-') ~= seen_token then return false end
if (redis.call('HGET', lease_key, 'heartbeat') or '-') ~= seen_heartbeat then return false end
local number = redis.call('HINCRBY', lease_key, 'number', 1)
redis.call('SET', owner_key, number..'.'..word)
redis.call('HSETNX', lease_key, 'realm', word)
redis.call('HSET', lease_key, 'heartbeat', 0, 'renewed_ms', clock.now_ms(), 'identity', identity)
return {number, redis.call('HGET', lease_key, 'realm')}
