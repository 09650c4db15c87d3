-- repair: look at jobs by id, and put right what would keep one from ever running, or from ever being forgotten.
--
-- KEYS  1 ready  2 active  3 scheduled  4 held (the rest as in claim)
-- ARGV  1 job key prefix  2 '1': write nothing, only tell  3 seconds that an enqueue is given for its second command
--       4 TTL (s) for an ended job without one, then the ids
-- RETURNS  one text an id: enqueued (written, never put into the queue) | restored (was in the queue, is in no index) | named
--       (held for a reason that the set of reasons lacked) | persisted (waits, had a TTL) | ttl (ended, had none) | '' (all well)

local ready, active, scheduled, held = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local job_prefix, dry, patience, ended_ttl = ARGV[1], ARGV[2] == '1', tonumber(ARGV[3]), ARGV[4]
local TERMINAL = {completed = true, failed = true, cancelled = true}

-- A key of another type in a hash's place means that there is no job; any other error stops the script before it writes.
local function foreign(reply)
  if not reply.err then return false end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return true end
  error(reply.err)
end

if not dry then redis.call('ZREM', active, '') end
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000

-- 1. Read. The indexes that are written later are read here, so a key of another type stops the script before it writes.
redis.call('SISMEMBER', held, '')

local function where(id, reason)
  if redis.call('ZSCORE', ready, id) or redis.call('ZSCORE', active, id) or redis.call('ZSCORE', scheduled, id) then
    return 'listed'
  end
  local score = reason and redis.pcall('ZSCORE', held .. ':' .. reason, id)
  if type(score) == 'string' then return 'held' end
  -- A key of another type holds no ids; where it is unknown whether one is held, it must not be put elsewhere too.
  if type(score) == 'table' then foreign(score) end
  if redis.call('ZSCORE', held .. ':missing', id) then return 'listed' end
  return nil
end

-- When an enqueue was first due: counted if it stands there as our scripts write it, or did: as Redis shows the score of a
-- time after 2001. A day, for a clock that was set back.
local function entered_at(text)
  if not text or #text > 24 then return nil end
  local ours = string.find(text, '^%d+%.%d%d%d%d%d%d$') or string.find(text, '^%d%d%d%d%d%d%d%d%d%d%.?%d*$')
  return ours and tonumber(text) <= now + 86400 and tonumber(text) or nil
end

-- A raw enqueue may be between its two commands.
local function young(text)
  local created = tonumber(text or '')
  if not created or created ~= created then return false end
  if created > 1e11 then created = created / 1000 end
  return now - created < patience
end

local function wrong(id, h)
  local key, status, reason = job_prefix .. id, h[1], h[6]
  if not status or not h[2] then return '' end
  if h[3] and TERMINAL[status] then return redis.call('TTL', key) == -1 and 'ttl' or '' end
  local place = where(id, reason)
  if place == 'held' and redis.call('SISMEMBER', held, reason) == 0 then return 'named' end
  if place then return redis.call('TTL', key) >= 0 and 'persisted' or '' end
  -- Only our scripts write this time, at an enqueue's first move. In a new enqueue of an ended id it is the old one's.
  if entered_at(h[5]) and not (h[3] and status == 'queued') then return 'restored' end
  if (status == 'queued' or status == 'scheduled') and not young(h[4]) then return 'enqueued' end
  return ''
end

local found, jobs, seen = {}, {}, {}
for i = 5, #ARGV do
  local id = ARGV[i]
  local h = redis.pcall('HMGET', job_prefix .. id, 'status', 'type', 'finished_at', 'created_at', '_due_at', 'held', 'priority')
  local what = (seen[id] or foreign(h)) and '' or wrong(id, h)
  seen[id] = true
  found[#found + 1] = what
  if what ~= '' then jobs[#jobs + 1] = {id = id, what = what, reason = h[6], priority = h[7]} end
end
if dry then return found end

-- 2. Write: into `ready` first.
local function score(job)
  local level = tonumber(job.priority or '')
  if not level or level ~= level or level > 1e15 or level < -1e15 then level = 0 end
  -- %.17g and not tostring(), which would cut the fraction that orders equals. What was in the queue goes ahead of them.
  return string.format('%.17g', math.floor(level) + (job.what == 'enqueued' and now / 1e10 or 0))
end

for _, job in ipairs(jobs) do
  local key = job_prefix .. job.id
  if job.what == 'ttl' then
    redis.call('EXPIRE', key, ended_ttl)
  elseif job.what == 'named' then
    redis.call('SADD', held, job.reason)
  elseif job.what == 'persisted' then
    redis.call('PERSIST', key)
  else
    redis.call('ZADD', ready, score(job), job.id)
    redis.call('PERSIST', key)
    redis.call('HSET', key, 'status', 'queued')
    -- Whoever held it last is refused from now on.
    redis.call('HDEL', key, 'worker', 'held')
  end
end
return found
