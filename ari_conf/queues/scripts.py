"""Redis scripts of the partitioned queue, each one atomic step. KEYS[1] is the prefix of the queue's keys: the scripts
do not work in a Redis Cluster."""

from ari_conf.common.redis_clock import CLOCK

MOST_IN_A_LANE = 10_000
"""Maximum callbacks in one partition; further ones are dropped, and reported in the account's problems."""
MOST_OF_AN_ACCOUNT, MOST_BYTES_OF_AN_ACCOUNT = 100_000, 256 * 1024**2
"""Maximum undelivered callbacks of one account, and their maximum bytes; likewise."""
MOST_DEAD_BYTES = 64 * 1024**2
"""Maximum bytes of an account's dead letters in Redis' memory; the oldest are removed."""
COUNTED_AGAIN_MS = 60_000
PROBLEMS_KEPT_MS, STRANGERS_PROBLEMS_KEPT_MS = 90 * 24 * 3600 * 1000, 24 * 3600 * 1000
"""Milliseconds to keep problems after the latest: of an account, and of a name that no account has, such as a typo."""
MOST_STRANGERS = 1000
"""Maximum names that no account has, under which problems are kept: the newest."""
MOST_FAILED, FAILED_MS = 60, 500
"""Requests to one receiver of an account that may fail in a row; then one request is allowed every FAILED_MS."""
MOST_FAILED_OF_ACCOUNT, FAILED_OF_ACCOUNT_MS = 300, 100
"""The same for all failing receivers of an account together: each name and port of one server is a receiver."""
GIVEN_UP_MS = 60_000
"""Milliseconds of failures after which no callback waits for a receiver; all attempts of a callback take less."""
MOST_FLOWS = 200
"""Maximum receivers of an account that are examined in one turn; the next turn continues with others."""

# Problems in the list of an account, newest first. A receiver that is down for an hour counts as one problem, and must
# not push out all others: an older problem with the same text is removed.
PROBLEM = f"""
local function tell(list, told, kept)
  redis.call('LPUSH', list, told)
  redis.call('LTRIM', list, 0, kept - 1)
  local account = list:match('([^:]*)$')
  if redis.call('HEXISTS', 'ari_conf:accounts', account) == 1 then
    redis.call('PEXPIRE', list, {PROBLEMS_KEPT_MS})
    return
  end
  redis.call('PEXPIRE', list, {STRANGERS_PROBLEMS_KEPT_MS})
  local t = redis.call('TIME')
  redis.call('ZADD', 'ari_conf:strangers', t[1], account)
  redis.call('PEXPIRE', 'ari_conf:strangers', {STRANGERS_PROBLEMS_KEPT_MS})
  if redis.call('ZCARD', 'ari_conf:strangers') > {MOST_STRANGERS} then
    redis.call('DEL', list:sub(1, -1 - #account)..redis.call('ZPOPMIN', 'ari_conf:strangers')[1])
  end
end
local function text_of(told)
  local well, read = pcall(cjson.decode, told)
  return well and type(read) == 'table' and read.text
end
local function problem(list, told, kept)
  local text = text_of(told)
  for _, older in ipairs(redis.call('LRANGE', list, 0, 19)) do
    if text_of(older) == text then redis.call('LREM', list, 1, older) end
  end
  tell(list, told, kept)
end
"""

# The first entry of an empty partition makes the partition ready; otherwise it is in one of the three places already.
# `append` returns false if there is no room, and reports it: an account's callbacks take no more of Redis than their
# share. Other queues have no bounds: their entries stand for files on a disk, and only ari_conf adds to them.
# The undelivered callbacks of an account are counted. The count may be wrong if entries were removed by hand, or by a
# version that did not count. If there seems to be no room left, they are therefore counted again.
MARK_READY = (
    """
local P = KEYS[1]
"""
    + CLOCK
    + PROBLEM
    + f"""
local function is_a(kind, key)
  local found = redis.call('TYPE', key).ok
  return found == kind or found == 'none'
end
-- Returns the key of a list. A value of another type is deleted, and the next heartbeat rebuilds what it hid.
local function list(key)
  if not is_a('list', key) then
    redis.call('DEL', key)
    redis.call('SET', P..'spoiled', 1)
  end
  return key
end
local function ready(lane)
  local account, flow = lane:match('^([^:]*):'), lane:match('^([^:]*:[^:]*):')
  local flows = list(P..'flows:'..account)
  if redis.call('RPUSH', list(P..'ready:'..flow), lane) == 1 and redis.call('RPUSH', flows, flow) == 1 then
    redis.call('RPUSH', list(P..'accounts'), account)
  end
end
local function weighed(account, entries, bytes)
  if redis.call('HINCRBY', P..'entries', account, entries) <= 0 then
    redis.call('HDEL', P..'entries', account)
    redis.call('HDEL', P..'bytes', account)
  else
    redis.call('HINCRBY', P..'bytes', account, bytes)
  end
end
local function weigh(lane, entries, bytes)
  if P ~= 'ari_conf:callbacks:' then return end
  if not pcall(weighed, lane:match('^([^:]*):'), entries, bytes) then
    -- The counters have a wrong type: reset them, so that no callback is lost.
    redis.call('DEL', P..'entries', P..'bytes')
  end
end
local function count_again(account)
  if not redis.call('SET', P..'counted:'..account, 1, 'NX', 'PX', {COUNTED_AGAIN_MS}) then return end
  local entries, bytes, mine = 0, 0, account..':'
  local function count(lanes)
    for _, lane in ipairs(lanes) do
      if lane:sub(1, #mine) == mine then
        entries = entries + redis.call('LLEN', P..'lane:'..lane)
        bytes = bytes + (redis.call('MEMORY', 'USAGE', P..'lane:'..lane) or 0)
      end
    end
  end
  for _, flow in ipairs(redis.call('LRANGE', list(P..'flows:'..account), 0, -1)) do
    count(redis.call('LRANGE', list(P..'ready:'..flow), 0, -1))
  end
  for _, worker in ipairs(redis.call('ZRANGE', P..'workers', 0, -1)) do
    count(redis.call('HKEYS', P..'held:'..worker))
  end
  count(redis.call('ZRANGE', P..'waiting', 0, -1))
  redis.call('HSET', P..'entries', account, entries)
  redis.call('HSET', P..'bytes', account, bytes)
end
local function no_room(lane, entry)
  if P ~= 'ari_conf:callbacks:' then return nil end
  if redis.call('LLEN', P..'lane:'..lane) >= {MOST_IN_A_LANE} then
    return '{MOST_IN_A_LANE} callbacks of one conference to one URL wait already'
  end
  local account = lane:match('^([^:]*):')
  local function is_full()
    local entries = tonumber(redis.call('HGET', P..'entries', account) or 0)
    local bytes = tonumber(redis.call('HGET', P..'bytes', account) or 0)
    return entries >= {MOST_OF_AN_ACCOUNT} or bytes + #entry > {MOST_BYTES_OF_AN_ACCOUNT}
  end
  local well, full = pcall(is_full)
  if well and full then
    count_again(account)
    if is_full() then
      return '{MOST_OF_AN_ACCOUNT} callbacks of this account, or {MOST_BYTES_OF_AN_ACCOUNT // 1024**2} MB, wait already'
    end
  end
end
local function append(lane, entry, wait_ms)
  list(P..'lane:'..lane)
  local full = no_room(lane, entry)
  if full then
    local account = lane:match('^([^:]*):')
    local text = full..': newer ones are dropped until receivers answer (docs/reference/callbacks.md, "Limits")'
    problem('ari_conf:problems:'..account, cjson.encode({{at_ms = clock(), call_uuid = '', text = text}}), 200)
    redis.call('HINCRBY', P..'counts', 'dropped', 1)
    return false
  end
  weigh(lane, 1, #entry)
  if redis.call('RPUSH', P..'lane:'..lane, entry) == 1 then
    if wait_ms and wait_ms > 0 then redis.call('ZADD', P..'waiting', clock() + wait_ms, lane) else ready(lane) end
  end
  return true
end
"""
)

# Failures of a receiver, and of its account, as "UNTIL SINCE". UNTIL is the time when all of them are forgotten,
# one request every FAILED_MS; SINCE is the time of the last success, or else of the first failure.
# A receiver with more than half of MOST_FAILED gets one request at a time. Above MOST_FAILED, or above the limit of its
# account, it rests until it may have another one. So its return is noticed, and retries don't flood a server.
FAILING = f"""
local MOST_FLOWS = {MOST_FLOWS}
local function failing(of)
  local well, known = pcall(redis.call, 'GET', P..'failing:'..of)
  if not well or not known then return 0, 0 end
  local till, since = known:match('^(%d+) (%d+)$')
  return tonumber(till) or 0, tonumber(since) or 0
end
local function note_one(of, most, each, number, now)
  local till, since = failing(of)
  if till == 0 and number <= 0 then return end
  till = math.min(math.max(till, now) + number * each, now + (most + 10) * each)
  if till <= now then redis.call('DEL', P..'failing:'..of) return end
  if number < 0 or since == 0 then since = now end
  redis.call('SET', P..'failing:'..of, string.format('%.0f %.0f', till, since), 'PX', string.format('%.0f', till - now))
end
local function note(lane, number, now)
  if number == 0 then return end
  note_one(lane:match('^([^:]*:[^:]*):'), {MOST_FAILED}, {FAILED_MS}, number, now)
  note_one(lane:match('^([^:]*):'), {MOST_FAILED_OF_ACCOUNT}, {FAILED_OF_ACCOUNT_MS}, number, now)
end
-- Returns the number of concurrent requests allowed, and true if the receiver is given up.
local function allowed(account, flow, now)
  local till, since = failing(flow)
  if till <= now then return math.huge, false end
  local most = {MOST_FAILED * FAILED_MS}
  local rests = till - now > most or failing(account) - now > {MOST_FAILED_OF_ACCOUNT * FAILED_OF_ACCOUNT_MS}
  if rests and now - since > {GIVEN_UP_MS} then return math.huge, true end
  return rests and 0 or till - now > most / 2 and 1 or math.huge, false
end
"""

# An account gets three quarters of what the other accounts leave. A receiver gets seven eighths of what the account's
# other receivers leave. However many threads a flood could use, some stay free for the next account and receiver.
FAIR_SHARES = (
    FAILING
    + """
local function shares(held, threads, now)
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
    return math.min(math.max(1, math.floor((share - all + has) * 7 / 8)), (allowed(account, flow, now))) - has
  end
  return math.max(0, threads - total), of_account, of_flow
end
"""
)

RELEASE_DUE = """
local function due(now)
  for _, lane in ipairs(redis.call('ZRANGEBYSCORE', P..'waiting', '-inf', now, 'LIMIT', 0, 100)) do
    redis.call('ZREM', P..'waiting', lane)
    ready(lane)
  end
end
"""

ENQUEUE = (
    MARK_READY
    + """
for i = 1, #ARGV, 2 do append(ARGV[i], ARGV[i + 1]) end
"""
)

SETTLE_AND_CLAIM = (
    MARK_READY
    + FAIR_SHARES
    + RELEASE_DUE
    + f"""
local worker, threads, token, lease, came = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), ARGV[5]
local done, held_as, verdict = ARGV[6], ARGV[7], ARGV[8]
local now, mine = clock(), P..'held:'..worker
if tonumber(redis.call('ZSCORE', P..'workers', worker) or 0) - now < tonumber(ARGV[9]) then
  redis.call('ZADD', P..'workers', now + lease, worker)
  redis.call('HSET', P..'threads', worker, threads)
end
if came ~= '' then redis.call('ZREM', P..'tokens', came) end
if done ~= '' and redis.call('HGET', mine, done) == held_as then
  note(done, tonumber(ARGV[10]), now)
  local lane = P..'lane:'..done
  redis.call('HDEL', mine, done)
  if verdict == 'retry' then
    local before = redis.call('LINDEX', lane, 0)
    if before then
      weigh(done, 0, #ARGV[11] - #before)
      redis.call('LSET', lane, 0, ARGV[11])
      redis.call('ZADD', P..'waiting', now + tonumber(ARGV[12]), done)
    end
  else
    if verdict == 'dead' then
      local letters, kept_ms = P..'dead:'..done:match('^([^:]*):'), tonumber(ARGV[13])
      redis.call('XADD', letters, 'MAXLEN', ARGV[12], '*', 'lane', done, 'entry', ARGV[11])
      redis.call('XTRIM', letters, 'MINID', string.format('%.0f', math.max(0, now - kept_ms)))
      while redis.call('MEMORY', 'USAGE', letters) > {MOST_DEAD_BYTES} and redis.call('XLEN', letters) > 1 do
        redis.call('XTRIM', letters, 'MAXLEN', math.floor(redis.call('XLEN', letters) * 0.9))
      end
      redis.call('PEXPIRE', letters, kept_ms)
      if ARGV[14] then pcall(problem, ARGV[14], ARGV[15], tonumber(ARGV[16])) end
    end
    if verdict == 'done' and ARGV[11] then
      local newest = P..'delivered:'..done:match('^([^:]*):')
      redis.call('LPUSH', newest, ARGV[11])
      redis.call('LTRIM', newest, 0, tonumber(ARGV[12]) - 1)
      redis.call('PEXPIRE', newest, ARGV[13])
    end
    local gone = verdict ~= 'back' and redis.call('LPOP', lane)
    if gone then weigh(done, -1, -#gone) end
    if redis.call('EXISTS', lane) == 1 then ready(done) end
  end
  redis.call('HINCRBY', P..'counts', verdict, 1)
end
due(now)
if token == '' then return false end
local free, of_account, of_flow = shares(redis.call('HKEYS', mine), threads, now)
if free == 0 then return false end
-- Skips partitions without entries, and keys that are no partitions.
local function first_of(flow)
  while true do
    local lane = redis.call('LPOP', list(P..'ready:'..flow))
    if not lane then return nil end
    local well, entry = pcall(redis.call, 'LINDEX', P..'lane:'..lane, 0)
    if well and entry then return lane end
  end
end
for _ = 1, redis.call('LLEN', list(P..'accounts')) do
  local account, lane = redis.call('LPOP', P..'accounts'), nil
  local flows = list(P..'flows:'..account)
  if of_account(account) > 0 then
    for _ = 1, math.min(redis.call('LLEN', flows), MOST_FLOWS) do
      local flow = redis.call('LPOP', flows)
      if of_flow(account, flow) > 0 then lane = first_of(flow) end
      if redis.call('EXISTS', P..'ready:'..flow) == 1 then redis.call('RPUSH', flows, flow) end
      if lane then break end
    end
  end
  if redis.call('EXISTS', flows) == 1 then redis.call('RPUSH', P..'accounts', account) end
  if lane then
    redis.call('HSET', mine, lane, token)
    local _, given_up = allowed(account, lane:match('^([^:]*:[^:]*):'), now)
    return {{lane, redis.call('LINDEX', P..'lane:'..lane, 0), given_up and 1 or 0}}
  end
end
return false
"""
)

# Each partition with entries is in exactly one place. If a key for the places was overwritten, all of them are rebuilt
# from what is left: a partition that no worker holds and that does not wait is ready. That scans every key, once.
# Keys of lists are checked where they are used (`list`), the others here.
REBUILD = """
local KINDS = {
  accounts = 'list', waiting = 'zset', workers = 'zset', threads = 'hash', tokens = 'zset', wakeups = 'list'
}
local function is_spoiled()
  if redis.call('DEL', P..'spoiled') == 1 then return true end
  for key, kind in pairs(KINDS) do
    if not is_a(kind, P..key) then return true end
  end
  for _, worker in ipairs(redis.call('ZRANGE', P..'workers', 0, -1)) do
    if not is_a('hash', P..'held:'..worker) then return true end
  end
  return false
end
local function each(pattern, act)
  local cursor = '0'
  repeat
    local found = redis.call('SCAN', cursor, 'MATCH', P..pattern, 'COUNT', 1000)
    cursor = found[1]
    for _, key in ipairs(found[2]) do act(key) end
  until cursor == '0'
end
local function rebuild()
  local placed = {}
  for key, kind in pairs(KINDS) do
    if not is_a(kind, P..key) then redis.call('DEL', P..key) end
  end
  redis.call('DEL', P..'accounts')
  for _, pattern in ipairs({'flows:*', 'ready:*'}) do
    each(pattern, function(key) redis.call('DEL', key) end)
  end
  each('held:*', function(key)
    if not is_a('hash', key) then redis.call('DEL', key) end
    for _, lane in ipairs(redis.call('HKEYS', key)) do placed[lane] = true end
  end)
  for _, lane in ipairs(redis.call('ZRANGE', P..'waiting', 0, -1)) do placed[lane] = true end
  local lanes = {}
  each('lane:*', function(key)
    if is_a('list', key) then lanes[key:sub(#P + 6)] = true else redis.call('DEL', key) end
  end)
  for lane in pairs(lanes) do
    if not placed[lane] then ready(lane) end
  end
end
"""

# A claim number above `last` is newer than the worker's list of claims that it serves: that partition is left alone.
HEARTBEAT = (
    MARK_READY
    + REBUILD
    + """
local worker, threads, lease, last, reclaim = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
if is_spoiled() then rebuild() end
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

# Wake-ups worth issuing: partitions that some worker may claim now, minus wake-ups on their way. Those are lost after
# `lost_ms`. A wake-up is an id in the list `wakeups`, from which workers take it.
FREE_CAPACITY = """
local function room(now, lost_ms)
  local accounts, found = redis.call('LRANGE', list(P..'accounts'), 0, 199), 0
  if #accounts == 0 then return 0 end
  for _, worker in ipairs(redis.call('ZRANGEBYSCORE', P..'workers', now, '+inf')) do
    local threads = tonumber(redis.call('HGET', P..'threads', worker) or 0)
    local free, of_account, of_flow = shares(redis.call('HKEYS', P..'held:'..worker), threads, now)
    local takes = 0
    for _, account in ipairs(accounts) do
      local account_room = of_account(account)
      for _, flow in ipairs(redis.call('LRANGE', list(P..'flows:'..account), 0, 199)) do
        if account_room <= 0 or takes >= free then break end
        local waiting = redis.call('LLEN', list(P..'ready:'..flow))
        local n = math.min(account_room, math.max(0, of_flow(account, flow)), waiting)
        takes, account_room = takes + n, account_room - n
      end
      if takes >= free then break end
    end
    found = found + math.min(takes, free)
  end
  redis.call('ZREMRANGEBYSCORE', P..'tokens', '-inf', now - lost_ms)
  return found - redis.call('ZCARD', P..'tokens')
end
local function issue_wakeups(most, now, lost_ms)
  local at, issued = redis.call('TIME'), {}
  for n = 1, math.min(most, room(now, lost_ms)) do
    issued[n] = at[1]..'.'..at[2]..'.'..n
    redis.call('ZADD', P..'tokens', now, issued[n])
    redis.call('LPUSH', list(P..'wakeups'), issued[n])
  end
  return issued
end
"""

ISSUE_WAKEUPS = (
    MARK_READY
    + FAIR_SHARES
    + RELEASE_DUE
    + FREE_CAPACITY
    + """
local now = clock()
due(now)
return issue_wakeups(tonumber(ARGV[1]), now, ARGV[2])
"""
)

RESEND = (
    MARK_READY
    + """
local sent, pace_ms, before = 0, tonumber(ARGV[2]), tonumber(ARGV[3])
for i = 4, #ARGV, 2 do
  local found = redis.call('XRANGE', P..'dead:'..ARGV[1], ARGV[i], ARGV[i])
  if found[1] then
    local lane, wait_ms = found[1][2][2], pace_ms * (before + sent)
    if append(lane, ARGV[i + 1], wait_ms) then
      redis.call('XDEL', P..'dead:'..ARGV[1], ARGV[i])
      sent = sent + 1
    end
  end
end
return sent
"""
)
