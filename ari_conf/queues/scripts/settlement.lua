-- Module: the settlement of claimed entries. `partitioned_queue.encode_disposition` makes the arguments.

local backlog = require('ari_conf.queues.scripts.backlog')
local failures = require('ari_conf.queues.scripts.failures')
local history = require('ari_conf.queues.scripts.history')
local keys = require('ari_conf.queues.scripts.keys')
local limits = require('ari_conf.queues.limits')
local partitions = require('ari_conf.queues.scripts.partitions')
local problems = require('ari_conf.queues.scripts.problems')

-- Return the disposition of an entry from a script's arguments, of which `first` is the first.
local function read(arguments, first)
  return {
    partition = arguments[first],
    claim_number = arguments[first + 1],
    outcome = arguments[first + 2], -- ack, release, retry or dead_letter
    failed_requests = tonumber(arguments[first + 3]), -- to add to the receiver's count; negative to take off
    entry = arguments[first + 4], -- its new content; '' if nothing of it is kept
    delay_ms = tonumber(arguments[first + 5]), -- until its next attempt
    max_kept = tonumber(arguments[first + 6]), -- of the account's dead letters
    ttl_ms = tonumber(arguments[first + 7]), -- of them
    problems_key = arguments[first + 8], -- '' without a problem
    problem = arguments[first + 9], -- JSON
    max_problems = tonumber(arguments[first + 10]),
    history = arguments[first + 11], -- an entry of the history (JSON), or ''
  }
end

local function retry(queue, disposition, now_ms)
  local partition, entries = disposition.partition, queue..'partition:'..disposition.partition
  local before = redis.call('LINDEX', entries, 0)
  if not before then return end
  backlog.adjust(queue, partition, 0, #disposition.entry - #before)
  redis.call('LSET', entries, 0, disposition.entry)
  redis.call('ZADD', queue..'delayed', now_ms + disposition.delay_ms, partition)
end

local function keep_dead_letter(queue, disposition, now_ms)
  local dead_letters = queue..'dead-letters:'..keys.account_of(disposition.partition)
  redis.call('XADD', dead_letters, 'MAXLEN', disposition.max_kept, '*',
    'partition', disposition.partition, 'entry', disposition.entry)
  redis.call('XTRIM', dead_letters, 'MINID', string.format('%.0f', math.max(0, now_ms - disposition.ttl_ms)))
  while redis.call('MEMORY', 'USAGE', dead_letters) > limits.MAX_DEAD_LETTER_BYTES
    and redis.call('XLEN', dead_letters) > 1 do
    redis.call('XTRIM', dead_letters, 'MAXLEN', math.floor(redis.call('XLEN', dead_letters) * 0.9))
  end
  redis.call('PEXPIRE', dead_letters, disposition.ttl_ms)
  if disposition.problems_key ~= '' then
    pcall(problems.add_once, disposition.problems_key, disposition.problem, disposition.max_problems)
    pcall(history.add_problem, keys.account_of(disposition.partition), disposition.problem)
  end
end

local function remove_first(queue, partition)
  local removed = redis.call('LPOP', queue..'partition:'..partition)
  if removed then backlog.adjust(queue, partition, -1, -#removed) end
end

-- Settle the first entry of a partition. Nothing happens if the worker does not hold the partition under this claim
-- number: the script is sent again after a lost answer.
local function settle(queue, worker, disposition, now_ms)
  local claims, partition, outcome = queue..'claims:'..worker, disposition.partition, disposition.outcome
  if redis.call('HGET', claims, partition) ~= disposition.claim_number then return end
  failures.record(queue, partition, disposition.failed_requests, now_ms)
  redis.call('HDEL', claims, partition)
  if outcome == 'retry' then
    retry(queue, disposition, now_ms)
  else
    if outcome == 'dead_letter' then keep_dead_letter(queue, disposition, now_ms) end
    if disposition.history ~= '' then
      pcall(history.add, keys.account_of(partition), disposition.history)
    end
    if outcome ~= 'release' then remove_first(queue, partition) end
    if redis.call('EXISTS', queue..'partition:'..partition) == 1 then partitions.make_ready(queue, partition) end
  end
  redis.call('HINCRBY', queue..'counts', outcome, 1)
end

return {read = read, settle = settle}
