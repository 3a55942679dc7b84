"""What `lanes` asks of Redis, each one atomic step. KEYS[1] is the prefix of the queue's keys: no Redis cluster."""

# Of Redis', in ms: who asks runs on any machine.
CLOCK = """
local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
"""

# An entry that finds its lane's list empty makes the lane ready; else it is in one of the three places already.
READY = (
    """
local P = KEYS[1]
"""
    + CLOCK
    + """
local function ready(lane)
  local account, flow = lane:match('^([^:]*):'), lane:match('^([^:]*:[^:]*):')
  if redis.call('RPUSH', P..'ready:'..flow, lane) == 1 and redis.call('RPUSH', P..'flows:'..account, flow) == 1 then
    redis.call('RPUSH', P..'accounts', account)
  end
end
local function append(lane, entry)
  if redis.call('RPUSH', P..'lane:'..lane, entry) == 1 then ready(lane) end
end
"""
)

# Three quarters of what the other accounts leave, and within an account seven eighths of what its other receivers
# leave: however many threads a flood could use, some stay free for the next account, and in it for the next receiver.
SHARES = """
local function shares(held, threads)
  local total, by_account, by_flow = 0, {}, {}
  for _, lane in ipairs(held) do
    local account, flow = lane:match('^([^:]*):'), lane:match('^([^:]*:[^:]*):')
    total, by_account[account], by_flow[flow] = total + 1, (by_account[account] or 0) + 1, (by_flow[flow] or 0) + 1
  end
  local function of_account(account)
    local has = by_account[account] or 0
    local share = math.max(1, math.floor((threads - total + has) * 3 / 4))
    return share - has, share, has
  end
  local function of_flow(account, flow)
    local _, share, all = of_account(account)
    local has = by_flow[flow] or 0
    return math.max(1, math.floor((share - all + has) * 7 / 8)) - has
  end
  return math.max(0, threads - total), of_account, of_flow
end
"""

DUE = """
local function due(now)
  for _, lane in ipairs(redis.call('ZRANGEBYSCORE', P..'waiting', '-inf', now, 'LIMIT', 0, 100)) do
    redis.call('ZREM', P..'waiting', lane)
    ready(lane)
  end
end
"""

ENQUEUE = (
    READY
    + """
for i = 1, #ARGV, 2 do append(ARGV[i], ARGV[i + 1]) end
"""
)

# A receiver that is down for an hour is one problem, and doesn't push all others out: the same text's older one goes.
PROBLEM = """
local function problem(list, told, kept)
  local text = cjson.decode(told).text
  for _, older in ipairs(redis.call('LRANGE', list, 0, 19)) do
    if cjson.decode(older).text == text then redis.call('LREM', list, 1, older) end
  end
  redis.call('LPUSH', list, told)
  redis.call('LTRIM', list, 0, kept - 1)
end
"""

TURN = (
    READY
    + SHARES
    + DUE
    + PROBLEM
    + """
local worker, threads, token, lease, came = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), ARGV[5]
local done, held_as, verdict = ARGV[6], ARGV[7], ARGV[8]
local now, mine = clock(), P..'held:'..worker
if tonumber(redis.call('ZSCORE', P..'workers', worker) or 0) - now < tonumber(ARGV[9]) then
  redis.call('ZADD', P..'workers', now + lease, worker)
  redis.call('HSET', P..'threads', worker, threads)
end
if came ~= '' then redis.call('ZREM', P..'tokens', came) end
if done ~= '' and redis.call('HGET', mine, done) == held_as then
  local lane = P..'lane:'..done
  redis.call('HDEL', mine, done)
  if verdict == 'retry' then
    redis.call('LSET', lane, 0, ARGV[10])
    redis.call('ZADD', P..'waiting', now + tonumber(ARGV[11]), done)
  else
    if verdict == 'dead' then
      local letters, kept_ms = P..'dead:'..done:match('^([^:]*):'), tonumber(ARGV[12])
      redis.call('XADD', letters, 'MAXLEN', ARGV[11], '*', 'lane', done, 'entry', ARGV[10])
      redis.call('XTRIM', letters, 'MINID', string.format('%.0f', math.max(0, now - kept_ms)))
      redis.call('PEXPIRE', letters, kept_ms)
      if ARGV[13] then problem(ARGV[13], ARGV[14], tonumber(ARGV[15])) end
    end
    if verdict == 'done' and ARGV[10] then
      local newest = P..'delivered:'..done:match('^([^:]*):')
      redis.call('LPUSH', newest, ARGV[10])
      redis.call('LTRIM', newest, 0, tonumber(ARGV[11]) - 1)
      redis.call('PEXPIRE', newest, ARGV[12])
    end
    if verdict ~= 'back' then redis.call('LPOP', lane) end
    if redis.call('EXISTS', lane) == 1 then ready(done) end
  end
  redis.call('HINCRBY', P..'counts', verdict, 1)
end
due(now)
if token == '' then return false end
local free, of_account, of_flow = shares(redis.call('HKEYS', mine), threads)
if free == 0 then return false end
for _ = 1, redis.call('LLEN', P..'accounts') do
  local account, lane = redis.call('LPOP', P..'accounts'), nil
  local flows = P..'flows:'..account
  if of_account(account) > 0 then
    for _ = 1, redis.call('LLEN', flows) do
      local flow = redis.call('LPOP', flows)
      if of_flow(account, flow) > 0 then lane = redis.call('LPOP', P..'ready:'..flow) end
      if redis.call('EXISTS', P..'ready:'..flow) == 1 then redis.call('RPUSH', flows, flow) end
      if lane then break end
    end
  end
  if redis.call('EXISTS', flows) == 1 then redis.call('RPUSH', P..'accounts', account) end
  if lane then
    redis.call('HSET', mine, lane, token)
    return {lane, redis.call('LINDEX', P..'lane:'..lane, 0)}
  end
end
return false
"""
)

# A token above `last` was made after the worker looked at what it serves: such a lane is left alone.
BEAT = (
    READY
    + """
local worker, threads, lease, last, reclaim = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local now, serving, taken_over = clock(), {}, 0
for i = 6, #ARGV do serving[ARGV[i]] = true end
local function give_back(from, which)
  local held = redis.call('HGETALL', P..'held:'..from)
  for i = 1, #held, 2 do
    if which(held[i + 1]) then
      redis.call('HDEL', P..'held:'..from, held[i])
      ready(held[i])
      taken_over = taken_over + 1
    end
  end
end
local function leave(gone)
  give_back(gone, function() return true end)
  redis.call('ZREM', P..'workers', gone)
  redis.call('HDEL', P..'threads', gone)
end
if lease == 0 then
  leave(worker)
  return taken_over
end
redis.call('ZADD', P..'workers', now + lease, worker)
redis.call('HSET', P..'threads', worker, threads)
give_back(worker, function(token) return tonumber(token) <= last and not serving[token] end)
if reclaim == '1' then
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', P..'workers', '-inf', now)) do leave(gone) end
end
return taken_over
"""
)

# As many tokens as there are lanes that some worker may take now, less those on their way; they are lost after a while.
ROOM = """
local function room(now, lost_ms)
  local accounts, found = redis.call('LRANGE', P..'accounts', 0, 199), 0
  if #accounts == 0 then return 0 end
  for _, worker in ipairs(redis.call('ZRANGEBYSCORE', P..'workers', now, '+inf')) do
    local threads = tonumber(redis.call('HGET', P..'threads', worker) or 0)
    local free, of_account, of_flow = shares(redis.call('HKEYS', P..'held:'..worker), threads)
    local takes = 0
    for _, account in ipairs(accounts) do
      local account_room = of_account(account)
      for _, flow in ipairs(redis.call('LRANGE', P..'flows:'..account, 0, 199)) do
        if account_room <= 0 or takes >= free then break end
        local n = math.min(account_room, math.max(0, of_flow(account, flow)), redis.call('LLEN', P..'ready:'..flow))
        takes, account_room = takes + n, account_room - n
      end
      if takes >= free then break end
    end
    found = found + math.min(takes, free)
  end
  redis.call('ZREMRANGEBYSCORE', P..'tokens', '-inf', now - lost_ms)
  return found - redis.call('ZCARD', P..'tokens')
end
"""

TOKENS = (
    READY
    + SHARES
    + DUE
    + ROOM
    + """
local now, made = clock(), {}
due(now)
for _ = 1, math.min(tonumber(ARGV[1]), room(now, ARGV[2])) do
  local token = string.format('%.0f', redis.call('INCR', P..'token'))
  redis.call('ZADD', P..'tokens', now, token)
  made[#made + 1] = token
end
return made
"""
)

RESEND = (
    READY
    + """
local sent, pace_ms, before = 0, tonumber(ARGV[2]), tonumber(ARGV[3])
for i = 4, #ARGV, 2 do
  local found = redis.call('XRANGE', P..'dead:'..ARGV[1], ARGV[i], ARGV[i])
  if found[1] then
    local lane, wait_ms = found[1][2][2], pace_ms * (before + sent)
    redis.call('XDEL', P..'dead:'..ARGV[1], ARGV[i])
    if wait_ms > 0 and redis.call('EXISTS', P..'lane:'..lane) == 0 then
      redis.call('RPUSH', P..'lane:'..lane, ARGV[i + 1])
      redis.call('ZADD', P..'waiting', clock() + wait_ms, lane)
    else
      append(lane, ARGV[i + 1])
    end
    sent = sent + 1
  end
end
return sent
"""
)
