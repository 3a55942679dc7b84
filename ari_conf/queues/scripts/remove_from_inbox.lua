-- Script: remove the oldest entries of a history's inbox after they were written into the database.
--
-- KEYS: 1 the inbox, 2 the account's list of entries that could not be written
-- ARGV: 1 account, 2 the oldest entry, 3 number of entries, 4 number of those that were written, 5 maximum of the list,
--       6 and following: the entries that could not be written
-- Returns 1; 0, and nothing is changed, if another worker has removed them.

local COUNTS = 'ari_conf:history:counts'

local inbox, unreadable = KEYS[1], KEYS[2]
local account, oldest, count = ARGV[1], ARGV[2], tonumber(ARGV[3])
local written, max_kept = tonumber(ARGV[4]), tonumber(ARGV[5])
local kept = {unpack(ARGV, 6)}

if redis.call('LINDEX', inbox, 0) ~= oldest then return 0 end
redis.call('LTRIM', inbox, count, -1)
redis.call('HINCRBY', COUNTS, 'written', written)
redis.call('HINCRBY', 'ari_conf:history-entries', account, written)
for _, entry in ipairs(kept) do
  redis.call('LPUSH', unreadable, entry)
  redis.call('HINCRBY', COUNTS, 'unreadable', 1)
end
if #kept > 0 then redis.call('LTRIM', unreadable, 0, max_kept - 1) end
return 1
