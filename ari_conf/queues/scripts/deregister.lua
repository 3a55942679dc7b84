-- Script: remove a worker that ends. What it holds is immediately ready for others.
--
-- KEYS: 1 prefix of the queue's keys
-- ARGV: 1 worker
-- Returns the number of partitions that it held.

local places = require('ari_conf.queues.scripts.places')
local worker_claims = require('ari_conf.queues.scripts.worker_claims')

local queue = KEYS[1]
local worker = ARGV[1]

places.repair(queue)
return worker_claims.remove(queue, worker)
