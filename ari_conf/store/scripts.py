"""Redis scripts of the state store, each one atomic step."""

from ari_conf.common.redis_clock import CLOCK
from ari_conf.queues.scripts import FAIR_SHARES, FREE_CAPACITY, MARK_READY, RELEASE_DUE

CHECK_OWNER = """
local function not_owner(key, token)
  if token == '' then return nil end
  local owner = redis.call('GET', key)
  if not owner then return redis.error_reply('FORGOTTEN whose the calls are') end
  if owner ~= token then return redis.error_reply('LOST to another owner') end
end
"""

# It needs CLOCK or MARK_READY before it. `leases` is the prefix of leases.
# A name may be taken over once its owner has not renewed a lease for `kept_ms`. If the owner has no lease, the time
# counts from the first request for the name.
NAME_FUNCTIONS = """
local function claim(names, name, conference, who, leases, kept_ms)
  local holder = redis.call('HGET', names, name)
  local owner = holder and holder:match('^%S+ (.*)$')
  if owner and owner ~= who then
    local now = clock()
    redis.call('HSETNX', leases..owner, 'at', now)
    if now - redis.call('HGET', leases..owner, 'at') <= tonumber(kept_ms) then return owner end
  end
  redis.call('HSET', names, name, conference..' '..who)
  return false
end
local function release(names, name, conference)
  local holder = redis.call('HGET', names, name)
  if holder and holder:match('^%S+') == conference then redis.call('HDEL', names, name) end
end
"""

# KEYS: names, the owner's key. ARGV: the fencing token ("" without fencing), then `claim`'s arguments from `name` on.
CLAIM_NAME = (
    CLOCK
    + CHECK_OWNER
    + NAME_FUNCTIONS
    + """
return not_owner(KEYS[2], ARGV[1]) or claim(KEYS[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6])
"""
)

# KEYS: prefix of the callbacks' keys, key of the last batch's id, the owner's key.
# ARGV: the fencing token; the batch's id; number of problems to keep; milliseconds until a wake-up counts as lost;
# number of commands, and for each its length and parts; maximum number of wake-ups; number of items, and for each a
# list or the prefix of a queue's keys, "" or the partition, and the text.
# The id is written first: where Redis accepts no writes (a replica; no memory, no disk), nothing is done at all. A part
# that Redis refuses after that, because a key holds something else, is left out and returned, and the rest is done.
# Commands may be executed twice. Items are not appended again under the same id, which is sent again after a lost
# answer.
# It returns the answer to each claim, the parts that were left out, and the number of callbacks that found no room.
WRITE_STEPS = (
    MARK_READY
    + FAIR_SHARES
    + RELEASE_DUE
    + FREE_CAPACITY
    + CHECK_OWNER
    + NAME_FUNCTIONS
    + """
local refused = not_owner(KEYS[3], ARGV[1])
if refused then return refused end
local known, last = pcall(redis.call, 'GET', KEYS[2])
local again = known and last == ARGV[2]
redis.call('SET', KEYS[2], ARGV[2])
local wrong = {}
local function done(key, ...)
  local well, answer = pcall(...)
  if well then return answer end
  wrong[#wrong + 1] = key
  wrong[#wrong + 1] = type(answer) == 'table' and answer.err or tostring(answer)
end
local claims, at = {}, 6
for _ = 1, tonumber(ARGV[5]) do
  local length, name, key = tonumber(ARGV[at]), ARGV[at + 1], ARGV[at + 2]
  if name == 'CLAIM' then
    claims[#claims + 1] = done(key, claim, unpack(ARGV, at + 2, at + length)) or false
  elseif name == 'RELEASE' then
    done(key, release, unpack(ARGV, at + 2, at + length))
  else
    done(key, redis.call, unpack(ARGV, at + 1, at + length))
  end
  at = at + length + 1
end
local wakeups, full = tonumber(ARGV[at]), 0
at = at + 1
if not again then
  for item = at + 1, at + 3 * tonumber(ARGV[at]), 3 do
    local where, lane, text = ARGV[item], ARGV[item + 1], ARGV[item + 2]
    if lane ~= '' then
      P = where
      if done(where..'lane:'..lane, append, lane, text) == false then full = full + 1 end
    else
      done(where, tell, where, text, tonumber(ARGV[3]))
    end
  end
end
P = KEYS[1]
done(P, function()
  if wakeups == 0 then return end
  local now = clock()
  due(now)
  issue_wakeups(wakeups, now, ARGV[4])
end)
return {claims, wrong, full}
"""
)
