-- Script: write a key and delete it, which shows that Redis allows both to a script.
--
-- KEYS: 1 key
-- Returns nothing.

local key = KEYS[1]

redis.call('SET', key, 1)
redis.call('DEL', key)
