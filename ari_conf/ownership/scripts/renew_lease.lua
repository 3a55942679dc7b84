-- Script: renew the owner's lease.
--
-- If Redis knows less than it has confirmed, it has lost data: it came back empty, or from an older copy. The owner then
-- continues with what it has in memory, unless it was suspended in the meantime and another owner exists.
--
-- KEYS: 1 the owner's fencing token, 2 lease, 3 id of the last batch, 4 version of the state, 5 names of all Asterisks
-- ARGV: 1 fencing token of the caller, 2 number of its lease, 3 last heartbeat that Redis has confirmed,
--       4 this heartbeat, 5 process identity, 6 '1' if the caller was never suspended, 7 realm, 8 version of the caller's state,
--       9 name of the Asterisk
-- Returns {'renewed', 'forgotten' or 'lost', id of the last batch or ''}.

local clock = require('ari_conf.common.scripts.clock')
local lease_repair = require('ari_conf.ownership.scripts.lease_repair')

local owner_key, lease_key, batch_key, version_key, names_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local fencing_token, number, confirmed_heartbeat = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local heartbeat, identity, was_never_suspended, realm = ARGV[4], ARGV[5], ARGV[6] == '1', ARGV[7]
local version, name = ARGV[8], ARGV[9]

lease_repair.repair(owner_key, lease_key)
local stored_token = redis.call('GET', owner_key)
local stored_number = tonumber(redis.call('HGET', lease_key, 'number') or 0)
local stored_heartbeat = tonumber(redis.call('HGET', lease_key, 'heartbeat') or -1)
local is_owner, result = stored_token == fencing_token, 'renewed'
if stored_token and not is_owner and not (stored_number < number and was_never_suspended) then return {'lost', ''} end
if not is_owner or stored_heartbeat < confirmed_heartbeat then
  redis.call('SET', owner_key, fencing_token)
  result = 'forgotten'
end
-- A Redis that came back empty must not look to a newer release as if it could begin there.
redis.call('SET', version_key, version, 'NX')
if not pcall(redis.call, 'SADD', names_key, name) then redis.call('DEL', names_key) end
redis.call('HSET', lease_key, 'number', number, 'heartbeat', heartbeat, 'renewed_ms', clock.now_ms(), 'identity', identity,
  'realm', realm)
local is_string, batch_id = pcall(redis.call, 'GET', batch_key)
return {result, is_string and batch_id or ''}
