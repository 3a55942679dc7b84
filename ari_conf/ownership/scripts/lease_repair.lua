-- Module: the repair of an ownership lease.

-- Delete what is no valid fencing token or field of a lease: a live owner writes its own again.
local function repair(owner_key, lease_key)
  for key, expected in pairs({[owner_key] = 'string', [lease_key] = 'hash'}) do
    local found = redis.call('TYPE', key).ok
    if found ~= expected and found ~= 'none' then redis.call('DEL', key) end
  end
  if not (redis.call('GET', owner_key) or ''):match('^[%w.]*$') then redis.call('DEL', owner_key) end
  for field, pattern in pairs({number = '^%d+$', heartbeat = '^%d+$', renewed_ms = '^%d+$', realm = '^%x*$'}) do
    if not (redis.call('HGET', lease_key, field) or '0'):match(pattern) then redis.call('HDEL', lease_key, field) end
  end
end

return {repair = repair}
