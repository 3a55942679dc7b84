-- Script: release the lease, if the caller still has it.
--
-- KEYS: 1 the owner's fencing token
-- ARGV: 1 fencing token of the caller
-- Returns nothing.

local owner_key = KEYS[1]
local fencing_token = ARGV[1]

if redis.call('GET', owner_key) == fencing_token then redis.call('SET', owner_key, '') end
