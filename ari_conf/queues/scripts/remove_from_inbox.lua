-- Script: remove the oldest entries of a history's inbox after they were written into the database.
--
-- KEYS: 1 the inbox, 2 the account's list of entries that could not be written
-- ARGV: 1 the oldest entry, 2 number of entries, 3 number of those that were written, 4 maximum of the list,
--       5 and following: the entries that could not be written
-- Returns 1; 0, and nothing is changed, if another worker has removed them.

local COUNTS = 'ari_conf:history:counts'

local inbox, unreadable = KEYS[1], KEYS[2]
local oldest, count, written, max_kept = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

if redis.call('LINDEX', inbox, 0) ~= oldest then return 0 end
redis.call('LTRIM', inbox, count, -1)
redis.call('HINCRBY', COUNTS, 'written', written)
for i = 5, #ARGV do
  redis.call('LPUSH', unreadable, ARGV[i])
  redis.call('HINCRBY', COUNTS, 'unreadable', 1)
end
if #ARGV >= 5 then redis.call('LTRIM', unreadable, 0, max_kept - 1) end
return 1
