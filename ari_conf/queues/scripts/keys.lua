-- Module: the keys of a partitioned queue. `queue` is the prefix of its keys, such as `ari_conf:callbacks:`.

-- Return the account of a partition, which is named ACCOUNT:ORIGIN:HASH.
local function account_of(partition)
  return partition:match('^([^:]*):')
end

-- Return the receiver of a partition: ACCOUNT:ORIGIN.
local function receiver_of(partition)
  return partition:match('^([^:]*:[^:]*):')
end

-- Return true if a key has this type, or does not exist.
local function has_type(key, expected)
  local found = redis.call('TYPE', key).ok
  return found == expected or found == 'none'
end

-- Return the key of a list. A value of another type is deleted, and the next heartbeat rebuilds what it hid.
local function list(queue, name)
  local key = queue..name
  if not has_type(key, 'list') then
    redis.call('DEL', key)
    redis.call('SET', queue..'damaged', 1)
  end
  return key
end

return {account_of = account_of, receiver_of = receiver_of, has_type = has_type, list = list}
