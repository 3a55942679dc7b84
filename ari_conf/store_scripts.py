"""What `store` asks of Redis, each one atomic step."""

from ari_conf.lane_scripts import CLOCK, DUE, READY, ROOM, SHARES

OWNER = """
local function not_owner(key, token)
  if token == '' then return nil end
  local owner = redis.call('GET', key)
  if not owner then return redis.error_reply('FORGOTTEN whose the calls are') end
  if owner ~= token then return redis.error_reply('LOST to another owner') end
end
"""

# After CLOCK or READY. `leases` is the prefix of leases, `kept_ms` for how long names are kept. A name whose owner has
# renewed no lease for so long may be taken; of one without a lease the time counts from the first that somebody asked.
NAMES = """
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

# KEYS: names, the owner's key. ARGV: the token ("" if it isn't fenced), then as `claim`.
CLAIM = (
    CLOCK
    + OWNER
    + NAMES
    + """
return not_owner(KEYS[2], ARGV[1]) or claim(KEYS[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6])
"""
)

# KEYS: the prefix of the callbacks' lanes, the id of the last step written, the owner's key, Celery's queue.
# ARGV: the token; how many problems are kept; ms until a worker's token is lost; how many commands, and of each its
# length and parts; how many messages for workers, and of each its token and text; then the steps, of each its id, how
# many items, and of each item a list or the prefix of a queue's lanes, "" or the lane, and the text.
# Commands may be done twice. Steps up to the last one that was written are left out: they come again because an answer
# was lost. Answers what each claim was answered.
WRITE = (
    READY
    + SHARES
    + DUE
    + ROOM
    + OWNER
    + NAMES
    + """
local refused = not_owner(KEYS[3], ARGV[1])
if refused then return refused end
local claims, at = {}, 5
for _ = 1, tonumber(ARGV[4]) do
  local length, name = tonumber(ARGV[at]), ARGV[at + 1]
  if name == 'CLAIM' then
    claims[#claims + 1] = claim(unpack(ARGV, at + 2, at + length))
  elseif name == 'RELEASE' then
    release(unpack(ARGV, at + 2, at + length))
  else
    redis.call(unpack(ARGV, at + 1, at + length))
  end
  at = at + length + 1
end
local letters = at
at = at + 1 + 2 * tonumber(ARGV[letters])
if at <= #ARGV then
  local first, last = at, redis.call('GET', KEYS[2])
  local probe = at
  while last and probe <= #ARGV do
    local next_step = probe + 2 + 3 * tonumber(ARGV[probe + 1])
    if ARGV[probe] == last then first = next_step end
    probe = next_step
  end
  at = first
  while at <= #ARGV do
    local id, items = ARGV[at], tonumber(ARGV[at + 1])
    at = at + 2
    for _ = 1, items do
      local where, lane, text = ARGV[at], ARGV[at + 1], ARGV[at + 2]
      if lane ~= '' then
        P = where
        append(lane, text)
      else
        redis.call('LPUSH', where, text)
        redis.call('LTRIM', where, 0, tonumber(ARGV[2]) - 1)
      end
      at = at + 3
    end
    redis.call('SET', KEYS[2], id)
  end
end
if ARGV[letters] ~= '0' then
  P = KEYS[1]
  local now = clock()
  due(now)
  for n = 1, math.min(tonumber(ARGV[letters]), room(now, ARGV[3])) do
    redis.call('ZADD', P..'tokens', now, ARGV[letters + 2 * n - 1])
    redis.call('LPUSH', KEYS[4], ARGV[letters + 2 * n])
  end
end
return claims
"""
)
