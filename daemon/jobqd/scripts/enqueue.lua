-- enqueue: write new jobs and put them into `ready` or `scheduled`. An id that exists is left as it is, but one that
-- never got into an index, because its HSET was not followed by a ZADD, gets there now with what it lacks.
--
-- KEYS  1 ready  2 active  3 scheduled  4 held  5 missing  6 dead (the rest as in claim)
-- ARGV  1 job key prefix  2 max_ready, then for each job:
--       id, priority, when, due, how many of the following (field, value, ...)
--       when: now | delay (due = seconds from now) | at (due = Unix time)
-- RETURNS  {'full', how many are ready}, {'taken', an id whose key holds a hash that is no job}
--       or {'ok', one text a job: '' for a new job, else the status of the one that exists}
--
-- Not to be refused is not its business: at maxmemory the first HSET fails and nothing has been written.

local ready, active, scheduled, held, missing, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local job_prefix, max_ready = ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local now_text = string.format('%.6f', now)

-- A key of another type in a hash's place means that there is no job; any other error stops the script before it writes.
local function foreign(reply)
  if not reply.err then return false end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return true end
  error(reply.err)
end

local function finite(text)
  local value = tonumber(text)
  return value and value == value and value > -1e300 and value < 1e300
end

local function indexed(id, reason)
  if redis.call('ZSCORE', ready, id) or redis.call('ZSCORE', active, id) or redis.call('ZSCORE', scheduled, id) then
    return true
  end
  return reason and type(redis.pcall('ZSCORE', held .. ':' .. reason, id)) == 'string'
end

-- 1. Read.
local jobs, replies, seen, at = {}, {}, {}, 3
while at <= #ARGV do
  local id, size = ARGV[at], tonumber(ARGV[at + 4])
  local h = redis.call('HMGET', job_prefix .. id, 'status', 'held', 'finished_at', 'type', 'created_at')
  local exists = seen[id] or redis.call('EXISTS', job_prefix .. id) == 1
  -- As far as an enqueue of ours comes with its first write.
  local begun = h[5] and (h[1] == 'queued' or h[1] == 'scheduled')
  if exists and not seen[id] and not (h[3] or h[4] or begun or indexed(id)) then return {'taken', id} end
  local job = {
    id = id, priority = tonumber(ARGV[at + 1]), when = ARGV[at + 2], due = ARGV[at + 3], first = at + 5, size = size,
  }
  if exists then
    local status = h[1] or (seen[id] and seen[id].when ~= 'now' and 'scheduled') or 'queued'
    replies[#replies + 1] = status
    job.lost = not seen[id] and (status == 'queued' or status == 'scheduled') and not indexed(id, h[2])
    job.ended = h[3]
    if job.lost then jobs[#jobs + 1] = job end
  else
    replies[#replies + 1] = ''
    jobs[#jobs + 1] = job
  end
  seen[id] = seen[id] or job
  if job.when ~= 'now' and not finite(job.due) then return redis.error_reply('ERR a due time must be a finite number') end
  at = at + 5 + size
end
local waiting = redis.call('ZCARD', ready)
redis.call('ZCARD', scheduled)
-- A key of another type in place of `held:missing` must not stop what needs it little.
local late = held .. ':missing'
local late_count = redis.pcall('ZCARD', late)
local late_usable = type(late_count) == 'number' or not foreign(late_count)
local has_missing = redis.call('ZCARD', missing) > 0
if #jobs > 0 and waiting + #jobs > max_ready then return {'full', waiting} end

-- 2. Write.
local last = {}

-- Not a < b, which follows the server's locale.
local function sorts_before(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

-- Equal scores run in byte order of the id: where that is not the order of the batch, the score grows by the least step.
local function score(job)
  local before = last[job.priority]
  local value = job.priority + now / 1e10
  if before then
    value = before.value
    if sorts_before(job.id, before.id) then value = value + (math.abs(job.priority) + 1) * 2.3e-16 end
  end
  last[job.priority] = {value = value, id = job.id}
  -- %.17g and not tostring(), which would cut the fraction that orders equals.
  return string.format('%.17g', value)
end

for _, job in ipairs(jobs) do
  local key = job_prefix .. job.id
  local delayed = job.when ~= 'now'
  redis.call('HSET', key, 'status', delayed and 'scheduled' or 'queued', 'created_at', now_text)
  if job.lost then
    for i = job.first, job.first + job.size - 1, 2 do redis.call('HSETNX', key, ARGV[i], ARGV[i + 1]) end
    if job.ended then
      -- What an older job of this id left behind; claim does the same for a raw enqueue.
      redis.call('HDEL', key, 'attempts', 'crashes', 'interruptions', 'result', 'error', 'error_type', 'traceback',
        'checkpoint', 'finished_at', 'progress', 'step', 'eta_seconds', '_history', '_ended', '_due_at')
      redis.pcall('LREM', dead, 0, job.id)
      redis.pcall('SREM', dead .. ':ids', job.id)
    end
    redis.call('PERSIST', key)
  else
    for i = job.first, job.first + job.size - 1, 1000 do
      redis.call('HSET', key, unpack(ARGV, i, math.min(i + 999, job.first + job.size - 1)))
    end
  end
  if delayed then
    local due = tonumber(job.due)
    -- Above that promote reads a time as milliseconds.
    if job.when == 'delay' then due = math.min(now + due, 100000000000) end
    -- The age of a job counts from when it was due: a time long past must not make a new one too old.
    due = math.max(due, now)
    redis.call('ZADD', scheduled, string.format('%.6f', due), job.id)
  else
    redis.call('ZADD', ready, score(job), job.id)
  end
  if has_missing then
    if late_usable then redis.call('ZREM', late, job.id) end
    redis.call('ZREM', missing, job.id)
  end
end
return {'ok', replies}
