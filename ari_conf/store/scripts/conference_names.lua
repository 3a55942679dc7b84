-- Module: the names of an account's conferences. A name belongs to the conference of one Asterisk: its field in the hash
-- is 'CONFERENCE ASTERISK'.

local clock = require('ari_conf.common.scripts.clock')

-- Claim a name for a conference of an Asterisk. Return false, or the Asterisk that has the name.
--
-- The name of another Asterisk may be taken over once its owner has not renewed its lease for `lease_lost_ms`
-- milliseconds. If there is no lease, the time counts from the first request for the name.
local function claim(names_key, name, conference_id, asterisk_name, lease_prefix, lease_lost_ms)
  local field = redis.call('HGET', names_key, name)
  local holder = field and field:match('^%S+ (.*)$')
  if holder and holder ~= asterisk_name then
    local lease_key, now_ms = lease_prefix..holder, clock.now_ms()
    redis.call('HSETNX', lease_key, 'renewed_ms', now_ms)
    local renewed_ms = redis.call('HGET', lease_key, 'renewed_ms')
    if now_ms - renewed_ms <= tonumber(lease_lost_ms) then return holder end
  end
  redis.call('HSET', names_key, name, conference_id..' '..asterisk_name)
  return false
end

-- Release a name, if it still belongs to this conference.
local function release(names_key, name, conference_id)
  local field = redis.call('HGET', names_key, name)
  if field and field:match('^%S+') == conference_id then redis.call('HDEL', names_key, name) end
end

return {claim = claim, release = release}
