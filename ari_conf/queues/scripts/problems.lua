-- Module: the problems of an account, a list with the newest first.

local limits = require('ari_conf.queues.limits')

-- Add a problem (JSON), and keep the newest `max_problems`; nil: the list is not trimmed. The key of the list ends
-- with the account.
local function add(list, problem, max_problems)
  redis.call('LPUSH', list, problem)
  if max_problems then redis.call('LTRIM', list, 0, max_problems - 1) end
  local account = list:match('([^:]*)$')
  if redis.call('HEXISTS', 'ari_conf:accounts', account) == 1
    or redis.call('HEXISTS', 'ari_conf:removals', account) == 1 then
    redis.call('PEXPIRE', list, limits.PROBLEMS_TTL_MS)
    return
  end
  redis.call('PEXPIRE', list, limits.UNKNOWN_ACCOUNT_PROBLEMS_TTL_MS)
  local seconds = redis.call('TIME')[1]
  redis.call('ZADD', 'ari_conf:unknown-accounts', seconds, account)
  redis.call('PEXPIRE', 'ari_conf:unknown-accounts', limits.UNKNOWN_ACCOUNT_PROBLEMS_TTL_MS)
  if redis.call('ZCARD', 'ari_conf:unknown-accounts') > limits.MAX_UNKNOWN_ACCOUNTS then
    local oldest = redis.call('ZPOPMIN', 'ari_conf:unknown-accounts')[1]
    redis.call('DEL', list:sub(1, -1 - #account)..oldest)
  end
end

local function text_of(problem)
  local is_valid, decoded = pcall(cjson.decode, problem)
  return is_valid and type(decoded) == 'table' and decoded.text
end

-- Add a problem, and remove an older one with the same text: a receiver that is down for an hour counts as one problem,
-- and must not push out all others.
local function add_once(list, problem, max_problems)
  local text = text_of(problem)
  for _, older in ipairs(redis.call('LRANGE', list, 0, 19)) do
    if text_of(older) == text then redis.call('LREM', list, 1, older) end
  end
  add(list, problem, max_problems)
end

return {add = add, add_once = add_once}
