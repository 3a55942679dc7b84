-- Script: claim a name for a conference.
--
-- KEYS: 1 the account's conference names, 2 the owner's fencing token
-- ARGV: 1 fencing token of the caller, or '' without fencing, 2 name, 3 conference id, 4 Asterisk name,
--       5 prefix of the keys of leases, 6 milliseconds without a renewal after which the holder has lost its names
-- Returns nil if the name is claimed, otherwise the name of the Asterisk that has it. Raises LOST or FORGOTTEN.

local conference_names = require('ari_conf.store.scripts.conference_names')
local owner_fence = require('ari_conf.store.scripts.owner_fence')

local names_key, owner_key = KEYS[1], KEYS[2]
local fencing_token, name, conference_id, asterisk_name = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local lease_prefix, lease_lost_ms = ARGV[5], ARGV[6]

local refusal = owner_fence.refusal(owner_key, fencing_token)
if refusal then return refusal end
return conference_names.claim(names_key, name, conference_id, asterisk_name, lease_prefix, lease_lost_ms)
