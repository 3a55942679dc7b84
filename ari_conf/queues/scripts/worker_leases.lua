-- Module: the leases of workers. What a worker without a lease has claimed becomes ready for others.

local function renew(queue, worker, threads, lease_ms, now_ms)
  redis.call('ZADD', queue..'workers', now_ms + lease_ms, worker)
  redis.call('HSET', queue..'threads', worker, threads)
end

-- Renew the lease if fewer than `margin_ms` milliseconds are left of it.
local function renew_if_short(queue, worker, threads, lease_ms, margin_ms, now_ms)
  local until_ms = tonumber(redis.call('ZSCORE', queue..'workers', worker) or 0)
  if until_ms - now_ms < margin_ms then renew(queue, worker, threads, lease_ms, now_ms) end
end

return {renew = renew, renew_if_short = renew_if_short}
