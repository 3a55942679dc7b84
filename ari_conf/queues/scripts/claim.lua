-- Script: claim the next entry for a thread of a worker.
--
-- KEYS: 1 prefix of the queue's keys
-- ARGV: 1 worker, 2 number of its threads, 3 milliseconds of its lease, 4 milliseconds below which the lease is renewed,
--       5 claim number, 6 id of the wake-up that this thread answers, or ''
-- Returns {partition, its first entry, 1 if its receiver is given up or 0}; nil if the worker may claim nothing now.

local claims = require('ari_conf.queues.scripts.claims')
local clock = require('ari_conf.common.scripts.clock')
local partitions = require('ari_conf.queues.scripts.partitions')
local worker_leases = require('ari_conf.queues.scripts.worker_leases')

local queue = KEYS[1]
local worker, threads, lease_ms, margin_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local claim_number, wakeup_id = ARGV[5], ARGV[6]
local now_ms = clock.now_ms()

worker_leases.renew_if_short(queue, worker, threads, lease_ms, margin_ms, now_ms)
if wakeup_id ~= '' then redis.call('ZREM', queue..'unanswered-wakeups', wakeup_id) end
partitions.release_due(queue, now_ms)
return claims.claim_next(queue, worker, threads, claim_number, now_ms)
