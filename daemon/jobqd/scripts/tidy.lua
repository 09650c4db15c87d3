-- tidy: take out of the dead letters, or out of one held set, the ids that do not belong there.
--
-- KEYS  4 held  6 dead (the rest as in claim)
-- ARGV  1 job key prefix  2 '1': write nothing, only tell  3 the held set's reason, or '' for the dead letters, then the ids
-- RETURNS  {1 if the name of an empty held set was taken out of the set of reasons, one text an id: unlisted (no dead letter) |
--       unheld (there is no such job) | '' (all well)}
--
-- `held:missing` is not its business: ids without a hash are what it holds.

local active, held, dead = KEYS[2], KEYS[4], KEYS[6]
local job_prefix, dry, reason = ARGV[1], ARGV[2] == '1', ARGV[3]

-- A key of another type in a hash's place means that there is no job; any other error stops the script before it writes.
local function foreign(reply)
  if not reply.err then return false end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return true end
  error(reply.err)
end

if not dry then redis.call('ZREM', active, '') end
redis.call('LLEN', dead)
redis.call('SISMEMBER', held, '')
local set = held .. ':' .. reason
local there = reason ~= '' and redis.call('ZCARD', set) or 0

local found, out = {}, {}
for i = 4, #ARGV do
  local id, what = ARGV[i], ''
  local h = redis.pcall('HMGET', job_prefix .. id, 'status', 'finished_at')
  local gone = foreign(h) or redis.call('EXISTS', job_prefix .. id) == 0
  if reason == '' then
    if gone or h[1] ~= 'failed' or not h[2] then what = 'unlisted' end
  elseif gone and redis.call('ZSCORE', set, id) then
    what = 'unheld'
  end
  found[#found + 1] = what
  if what ~= '' then out[#out + 1] = id end
end
local unnamed = reason ~= '' and there == 0 and redis.call('SISMEMBER', held, reason) or 0
if dry then return {unnamed, found} end

for _, id in ipairs(out) do
  if reason ~= '' then
    redis.call('ZREM', set, id)
  else
    redis.call('LREM', dead, 0, id)
    -- Only now: until it is out of the list, this tells the next dead-lettering to look for it there.
    redis.pcall('SREM', dead .. ':ids', id)
  end
end
if reason ~= '' and redis.call('EXISTS', set) == 0 then unnamed = redis.call('SREM', held, reason) end
return {unnamed, found}
