-- Script: write a batch of steps. `step_batch.encode_batch` makes the arguments.
--
-- KEYS: 1 prefix of the callback queue's keys, 2 id of the last batch, 3 the owner's fencing token
-- ARGV: 1 fencing token of the caller, or '' without fencing, 2 id of the batch, 3 maximum number of problems to keep,
--       4 milliseconds after which an unanswered wake-up counts as lost, 5 maximum number of wake-ups,
--       6 number of commands, 7 number of items, 8 and following:
--       for each command: the number of its parts, its name, its key, its other parts
--       for each item: a list, the prefix of a queue's keys or that of the history's inboxes; '', the partition or the
--       account; the text
-- Returns {answer to each CLAIM: false or the Asterisk that has the name; key and error of each part that was left out;
--   number of items that found no room}. Raises LOST or FORGOTTEN.
--
-- The id is written first: where Redis accepts no writes (a replica; no memory, no disk), nothing is done at all. A part
-- that Redis refuses after that, because a key holds something else, is left out and returned, and the rest is done. A
-- batch is sent again under the same id after a lost answer: its commands are executed twice, its items are not appended
-- again.

local clock = require('ari_conf.common.scripts.clock')
local conference_names = require('ari_conf.store.scripts.conference_names')
local history = require('ari_conf.queues.scripts.history')
local owner_fence = require('ari_conf.store.scripts.owner_fence')
local partitions = require('ari_conf.queues.scripts.partitions')
local problems = require('ari_conf.queues.scripts.problems')
local wakeups = require('ari_conf.queues.scripts.wakeups')

local callbacks, batch_key, owner_key = KEYS[1], KEYS[2], KEYS[3]
local fencing_token, batch_id, max_problems, wakeup_lost_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local max_wakeups, command_count, item_count = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local first_command = 8
local HISTORY = 'ari_conf:history-inbox:'

local refused_parts = {}

-- Call a function, and return its result. If it raises, note the error under the key, and return nil.
local function attempt(key, ...)
  local is_done, result = pcall(...)
  if is_done then return result end
  refused_parts[#refused_parts + 1] = key
  refused_parts[#refused_parts + 1] = type(result) == 'table' and result.err or tostring(result)
  return nil
end

-- Execute the commands. Return the answers to claims, and the position after the last command.
local function execute_commands()
  local claims, position = {}, first_command
  for _ = 1, command_count do
    local length, name, key = tonumber(ARGV[position]), ARGV[position + 1], ARGV[position + 2]
    local last = position + length
    if name == 'CLAIM' then
      claims[#claims + 1] = attempt(key, conference_names.claim, unpack(ARGV, position + 2, last)) or false
    elseif name == 'RELEASE' then
      attempt(key, conference_names.release, unpack(ARGV, position + 2, last))
    else
      attempt(key, redis.call, unpack(ARGV, position + 1, last))
    end
    position = last + 1
  end
  return claims, position
end

-- Append the items, and return the number of those that found no room.
local function append_items(first_item)
  local dropped = 0
  for position = first_item, first_item + 3 * (item_count - 1), 3 do
    local destination, partition, text = ARGV[position], ARGV[position + 1], ARGV[position + 2]
    if partition == '' then
      attempt(destination, problems.add, destination, text, max_problems)
      attempt(destination, history.add_problem, destination:match('([^:]*)$'), text)
    elseif destination == HISTORY then
      attempt(destination..partition, history.add, partition, text)
    else
      local is_added = attempt(destination..'partition:'..partition, partitions.append, destination, partition, text)
      if is_added == false then dropped = dropped + 1 end
    end
  end
  return dropped
end

local function issue_wakeups()
  if max_wakeups == 0 then return end
  local now_ms = clock.now_ms()
  partitions.release_due(callbacks, now_ms)
  wakeups.issue(callbacks, max_wakeups, now_ms, wakeup_lost_ms)
end

local refusal = owner_fence.refusal(owner_key, fencing_token)
if refusal then return refusal end
local is_string, last_batch_id = pcall(redis.call, 'GET', batch_key)
local is_repeated = is_string and last_batch_id == batch_id
redis.call('SET', batch_key, batch_id)

local claims, first_item = execute_commands()
local dropped = 0
if not is_repeated then dropped = append_items(first_item) end
attempt(callbacks, issue_wakeups)
return {claims, refused_parts, dropped}
