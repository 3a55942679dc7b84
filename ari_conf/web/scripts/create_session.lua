-- Script: create a session of the dashboard. One session too many ends the oldest.
--
-- KEYS: 1 session, 2 the account's sessions, the newest first
-- ARGV: 1 session (JSON), 2 its lifetime in seconds, 3 maximum number of the account's sessions
-- Returns nothing.

local session_key, sessions_key = KEYS[1], KEYS[2]
local session, lifetime_s, max_sessions = ARGV[1], ARGV[2], tonumber(ARGV[3])

redis.call('SET', session_key, session, 'EX', lifetime_s)
redis.call('LPUSH', sessions_key, session_key)
redis.call('EXPIRE', sessions_key, lifetime_s)
for _, oldest in ipairs(redis.call('LRANGE', sessions_key, max_sessions, -1)) do redis.call('DEL', oldest) end
redis.call('LTRIM', sessions_key, 0, max_sessions - 1)
