-- Script: replace the entry of an Idempotency-Key by one with a response, or remove it. An entry that was evicted in the
-- meantime stays so.
--
-- KEYS: 1 the account's entries, 2 their order
-- ARGV: 1 field of the entry, 2 entry (JSON), or '' to remove it
-- Returns nothing.

local idempotency_entries = require('ari_conf.web.scripts.idempotency_entries')

local entries_key, order_key = KEYS[1], KEYS[2]
local field, entry = ARGV[1], ARGV[2]

local bytes_before = redis.call('HSTRLEN', entries_key, field)
if bytes_before == 0 then return end
if entry == '' then
  idempotency_entries.remove(entries_key, order_key, field)
  return
end
redis.call('HSET', entries_key, field, entry)
redis.call('HINCRBY', entries_key, 'bytes', #entry - bytes_before)
