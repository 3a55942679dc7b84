-- Script: begin a request with an Idempotency-Key. Redis runs scripts one after another, so exactly one of several
-- concurrent requests with the same key is the first.
--
-- KEYS: 1 the account's entries, 2 their order
-- ARGV: 1 field of the entry, 2 new entry (JSON), 3 maximum number of entries, 4 their maximum bytes,
--       5 milliseconds to keep an entry
-- Returns nil for the first request, otherwise {entry, its age in milliseconds}.

local clock = require('ari_conf.common.scripts.clock')
local idempotency_entries = require('ari_conf.web.scripts.idempotency_entries')

local entries_key, order_key = KEYS[1], KEYS[2]
local field, entry, max_entries, max_bytes, ttl_ms =
  ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local MAX_EXPIRED = 100
local now_ms = clock.now_ms()

local expired = redis.call('ZRANGEBYSCORE', order_key, '-inf', now_ms - ttl_ms, 'LIMIT', 0, MAX_EXPIRED)
for _, old in ipairs(expired) do idempotency_entries.remove(entries_key, order_key, old) end
local found, began_ms = redis.call('HGET', entries_key, field), redis.call('ZSCORE', order_key, field)
if found and began_ms and now_ms - began_ms < ttl_ms then return {found, now_ms - began_ms} end
if found then idempotency_entries.remove(entries_key, order_key, field) end
redis.call('HSET', entries_key, field, entry)
redis.call('HINCRBY', entries_key, 'bytes', #entry)
redis.call('ZADD', order_key, now_ms, field)
while redis.call('ZCARD', order_key) > max_entries
  or tonumber(redis.call('HGET', entries_key, 'bytes')) > max_bytes do
  local oldest = redis.call('ZRANGE', order_key, 0, 0)[1]
  idempotency_entries.remove(entries_key, order_key, oldest)
end
redis.call('PEXPIRE', entries_key, ttl_ms)
redis.call('PEXPIRE', order_key, ttl_ms)
return false
