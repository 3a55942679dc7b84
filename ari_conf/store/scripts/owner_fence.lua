-- Module: the fence against writes of a process that no longer owns the calls.

-- Return an error if the process with this fencing token is not the owner; nil if it is, or if the token is ''.
local function refusal(owner_key, fencing_token)
  if fencing_token == '' then return nil end
  local owner = redis.call('GET', owner_key)
  if not owner then return redis.error_reply('FORGOTTEN whose the calls are') end
  if owner ~= fencing_token then return redis.error_reply('LOST to another owner') end
  return nil
end

return {refusal = refusal}
