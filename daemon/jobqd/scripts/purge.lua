-- purge: delete dead letters for good, each only as it was looked at: one that was given a new chance meanwhile lives on.
--
-- KEYS  1 ready  2 active  3 scheduled  6 dead (the rest as in claim)
-- ARGV  1 job key prefix, then for each job: id, the `finished_at` it was seen with
-- RETURNS  one text an id: purged | gone (no such job) | changed (it failed anew) | the status of a job that is not dead

local ready, active, scheduled, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[6]
local job_prefix = ARGV[1]

-- A key of another type in a hash's place means that there is no job; any other error stops the script before it writes.
local function foreign(reply)
  if not reply.err then return false end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return true end
  error(reply.err)
end

redis.call('ZREM', active, '')

local function waits(id)
  return redis.call('ZSCORE', ready, id) or redis.call('ZSCORE', active, id) or redis.call('ZSCORE', scheduled, id)
end

local replies, doomed, seen = {}, {}, {}
for i = 2, #ARGV, 2 do
  local id, answer = ARGV[i], nil
  local h = redis.pcall('HMGET', job_prefix .. id, 'status', 'finished_at')
  if seen[id] or foreign(h) or redis.call('EXISTS', job_prefix .. id) == 0 then
    answer = 'gone'
  elseif h[1] ~= 'failed' or not h[2] then
    answer = h[1] or 'queued'
  elseif h[2] ~= ARGV[i + 1] or waits(id) then
    answer = 'changed'
  else
    answer = 'purged'
    seen[id] = true
    doomed[#doomed + 1] = id
  end
  replies[#replies + 1] = answer
end

for _, id in ipairs(doomed) do
  -- From the tail, where the oldest are. An entry left by an error is swept later; a hash left has its TTL.
  redis.call('LREM', dead, -1, id)
  redis.pcall('SREM', dead .. ':ids', id)
  redis.call('DEL', job_prefix .. id)
end
return replies
