-- Module: the partitions of a queue, whose entries are processed in order. `queue` is the prefix of the queue's keys.
--
-- A partition with entries is in exactly one of three places: ready, claimed by a worker, or waiting for its next
-- attempt (ari_conf/queues/partitioned_queue.py).

local backlog = require('ari_conf.queues.scripts.backlog')
local clock = require('ari_conf.common.scripts.clock')
local keys = require('ari_conf.queues.scripts.keys')
local problems = require('ari_conf.queues.scripts.problems')

local MAX_RELEASED = 100

-- Make a partition that is in none of the three places ready.
local function make_ready(queue, partition)
  local account, receiver = keys.account_of(partition), keys.receiver_of(partition)
  local receivers = keys.list(queue, 'receivers:'..account)
  local is_first_of_receiver = redis.call('RPUSH', keys.list(queue, 'ready:'..receiver), partition) == 1
  if is_first_of_receiver and redis.call('RPUSH', receivers, receiver) == 1 then
    redis.call('RPUSH', keys.list(queue, 'accounts'), account)
  end
end

local function report_dropped(queue, partition, refusal)
  local text = refusal..': newer ones are dropped until receivers answer (docs/reference/callbacks.md, "Limits")'
  local problem = cjson.encode({at_ms = clock.now_ms(), call_uuid = '', kind = 'callbacks_full', text = text})
  -- The list is not trimmed: there are two such texts, and the next problem of any other kind trims it.
  problems.add_once('ari_conf:problems:'..keys.account_of(partition), problem)
  redis.call('HINCRBY', queue..'counts', 'dropped', 1)
end

-- Append an entry to its partition. The first entry of an empty partition makes it ready, after `wait_ms` milliseconds
-- if that is given. Return false if there is no room; that is reported to the account.
local function append(queue, partition, entry, wait_ms)
  local entries = keys.list(queue, 'partition:'..partition)
  local refusal = backlog.refusal(queue, partition, entry)
  if refusal then
    report_dropped(queue, partition, refusal)
    return false
  end
  backlog.adjust(queue, partition, 1, #entry)
  if redis.call('RPUSH', entries, entry) == 1 then
    if wait_ms and wait_ms > 0 then
      redis.call('ZADD', queue..'delayed', clock.now_ms() + wait_ms, partition)
    else
      make_ready(queue, partition)
    end
  end
  return true
end

-- Make partitions ready whose next attempt is due.
local function release_due(queue, now_ms)
  local due = redis.call('ZRANGEBYSCORE', queue..'delayed', '-inf', now_ms, 'LIMIT', 0, MAX_RELEASED)
  for _, partition in ipairs(due) do
    redis.call('ZREM', queue..'delayed', partition)
    make_ready(queue, partition)
  end
end

return {make_ready = make_ready, append = append, release_due = release_due}
