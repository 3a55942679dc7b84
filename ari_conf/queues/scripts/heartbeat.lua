-- Script: renew the lease of a worker, note its health, and make partitions ready that it holds but no thread serves,
-- because an answer was lost. If a key of the queue has a wrong type, rebuild the places of all partitions first.
--
-- KEYS: 1 prefix of the queue's keys
-- ARGV: 1 worker, 2 number of its threads, 3 milliseconds of its lease, 4 its last claim number (a claim with a higher
--       number is newer than the list that follows, and left alone), 5 '1' to remove workers without a lease as well,
--       6 what keeps the worker from working, or '', 7 and following: the claim numbers that threads serve
-- Returns the number of partitions that were made ready.

local clock = require('ari_conf.common.scripts.clock')
local places = require('ari_conf.queues.scripts.places')
local worker_claims = require('ari_conf.queues.scripts.worker_claims')
local worker_leases = require('ari_conf.queues.scripts.worker_leases')

local queue = KEYS[1]
local worker, threads, lease_ms, last_claim_number = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local removes_expired, fault = ARGV[5] == '1', ARGV[6]
local served = {}
for i = 7, #ARGV do
  local claim_number = ARGV[i]
  served[claim_number] = true
end
local now_ms = clock.now_ms()

local function is_unserved(claim_number)
  return tonumber(claim_number) <= last_claim_number and not served[claim_number]
end

places.repair(queue)
worker_leases.renew(queue, worker, threads, lease_ms, now_ms)
redis.call('HSET', queue..'health', worker, cjson.encode({at_ms = now_ms, fault = fault}))
local released = worker_claims.release(queue, worker, is_unserved)
if removes_expired then released = released + worker_claims.remove_expired(queue, now_ms) end
return released
