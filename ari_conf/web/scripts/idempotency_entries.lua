-- Module: the entries of Idempotency-Keys. A hash has them and their `bytes`, a sorted set has their order by time.

local function remove(entries_key, order_key, field)
  redis.call('HINCRBY', entries_key, 'bytes', -redis.call('HSTRLEN', entries_key, field))
  redis.call('HDEL', entries_key, field)
  redis.call('ZREM', order_key, field)
end

return {remove = remove}
