-- Script: settle the entry that a thread of a worker has claimed.
--
-- KEYS: 1 prefix of the queue's keys
-- ARGV: 1 worker, 2 number of its threads, 3 milliseconds of its lease, 4 milliseconds below which the lease is renewed,
--       5 and following: the disposition (`settlement.read`)
-- Returns nothing.

local clock = require('ari_conf.common.scripts.clock')
local partitions = require('ari_conf.queues.scripts.partitions')
local settlement = require('ari_conf.queues.scripts.settlement')
local worker_leases = require('ari_conf.queues.scripts.worker_leases')

local queue = KEYS[1]
local worker, threads, lease_ms, margin_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local disposition = settlement.read(ARGV, 5)
local now_ms = clock.now_ms()

worker_leases.renew_if_short(queue, worker, threads, lease_ms, margin_ms, now_ms)
settlement.settle(queue, worker, disposition, now_ms)
partitions.release_due(queue, now_ms)
