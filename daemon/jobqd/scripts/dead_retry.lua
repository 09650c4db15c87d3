-- dead_retry: an operator's new chance for dead-lettered jobs. Their checkpoints are kept; attempts begin anew.
--
-- KEYS  1 ready  2 active  6 dead (the rest as in claim)
-- ARGV  1 job key prefix  2 progress channel prefix, then the ids
-- RETURNS  one text an id: retried | gone (no such job) | the status of a job that is not dead

local ready, active, dead = KEYS[1], KEYS[2], KEYS[6]
local job_prefix, channel_prefix = ARGV[1], ARGV[2]

-- A key of another type in a hash's place means that there is no job; any other error stops the script before it writes.
local function foreign(reply)
  if not reply.err then return false end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return true end
  error(reply.err)
end

redis.call('ZREM', active, '')
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000

redis.call('ZCARD', ready)
redis.call('LLEN', dead)
local replies, jobs, seen = {}, {}, {}
for i = 3, #ARGV do
  local id = ARGV[i]
  local h = redis.pcall('HMGET', job_prefix .. id, 'status', 'finished_at', 'priority')
  if foreign(h) or redis.call('EXISTS', job_prefix .. id) == 0 then
    replies[#replies + 1] = 'gone'
  elseif h[1] ~= 'failed' or not h[2] or seen[id] then
    replies[#replies + 1] = seen[id] and 'queued' or h[1] or 'queued'
  else
    seen[id] = true
    replies[#replies + 1] = 'retried'
    jobs[#jobs + 1] = {id = id, priority = tonumber(h[3] or '') or 0}
  end
end

for _, job in ipairs(jobs) do
  local key, level = job_prefix .. job.id, job.priority
  if level ~= level or level > 1e15 or level < -1e15 then level = 0 end
  redis.call('PERSIST', key)
  redis.call('ZADD', ready, string.format('%.17g', math.floor(level) + now / 1e10), job.id)
  redis.call('HSET', key, 'status', 'queued')
  redis.call('HDEL', key, 'finished_at', 'attempts', 'crashes', 'interruptions', 'error', 'error_type', 'traceback',
    'result', 'progress', 'step', 'eta_seconds', '_due_at', '_ended')
  redis.call('LREM', dead, 0, job.id)
  -- Only now: until it is out of the list, this tells the next dead-lettering to look for it there.
  redis.pcall('SREM', dead .. ':ids', job.id)
  redis.pcall('PUBLISH', channel_prefix .. job.id, '{"status":"queued"}')
end
return replies
