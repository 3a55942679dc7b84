-- Module: the history's inbox of each account, a list of entries that a worker is to write into the database, the oldest
-- first. An entry in the queue `history` stands for an inbox that is not empty (ari_conf/queues/history_inbox.py).

local clock = require('ari_conf.common.scripts.clock')
local limits = require('ari_conf.queues.limits')
local partitions = require('ari_conf.queues.scripts.partitions')

local QUEUE, INBOX = 'ari_conf:history:', 'ari_conf:history-inbox:'
local CHECK_INTERVAL = 500

-- Remove the oldest entries of an inbox that is too long.
local function bound(inbox, length)
  local is_long = length > limits.MAX_INBOX_ENTRIES
  if not is_long and length % CHECK_INTERVAL == 0 then
    is_long = redis.call('MEMORY', 'USAGE', inbox) > limits.MAX_INBOX_BYTES
  end
  if not is_long then return end
  local dropped = math.ceil(length / 20)
  redis.call('LTRIM', inbox, dropped, -1)
  redis.call('HINCRBY', QUEUE..'counts', 'dropped', dropped)
end

-- Add an entry (JSON) to the inbox of an account. Names that no account has get no history.
local function add(account, entry)
  if redis.call('HEXISTS', 'ari_conf:accounts', account) == 0
    and redis.call('HEXISTS', 'ari_conf:removals', account) == 0 then
    return
  end
  local inbox, partition = INBOX..account, account..':-:-'
  local length = redis.call('RPUSH', inbox, entry)
  bound(inbox, length)
  -- The worker that empties an inbox settles its entry afterwards: the first one after that needs another.
  if length == 1 or redis.call('EXISTS', QUEUE..'partition:'..partition) == 0 then
    partitions.append(QUEUE, partition, cjson.encode({auth_id = account, at_ms = clock.now_ms()}))
  end
end

-- Add a problem (JSON) of an account.
local function add_problem(account, problem)
  local item = '{"type":"ProblemFound","auth_id":'..cjson.encode(account)..',"problem":'..problem..'}'
  add(account, '{"at_ms":'..string.format('%.0f', clock.now_ms())..',"item":'..item..'}')
end

return {add = add, add_problem = add_problem}
