-- cancel: end jobs at once, wherever they are. A run under way is told, and whatever it still sends is refused.
--
-- KEYS  1 ready  2 active  3 scheduled  4 held  5 missing  6 dead  7 finished  8 counters
-- ARGV  1 job key prefix  2 progress channel prefix  3 control channel  4 TTL (s)  5 how many ended ids `finished` keeps,
--       then the ids
-- RETURNS  one text an id: cancelled (was running) | removed (was waiting) | already (was cancelled before) | gone (no such
--       job) | completed or failed (had ended so)

local ready, active, scheduled, held, missing = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local dead, finished, counters = KEYS[6], KEYS[7], KEYS[8]
local job_prefix, channel_prefix, control, ttl, finished_max = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local TERMINAL = {completed = true, failed = true, cancelled = true}

-- A key of another type in a hash's place means that there is no job; any other error stops the script before it writes.
local function foreign(reply)
  if not reply.err then return false end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return true end
  error(reply.err)
end

local function indexed(id)
  return redis.call('ZSCORE', ready, id) or redis.call('ZSCORE', active, id) or redis.call('ZSCORE', scheduled, id)
    or redis.call('ZSCORE', missing, id)
end

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local now_text = string.format('%.6f', now)

-- When an enqueue was first due: counted if it stands there as our scripts write it, or did: as Redis shows the score of a
-- time after 2001. A day, for a clock that was set back.
local function entered_at(text)
  if not text or #text > 24 then return nil end
  local ours = string.find(text, '^%d+%.%d%d%d%d%d%d$') or string.find(text, '^%d%d%d%d%d%d%d%d%d%d%.?%d*$')
  return ours and tonumber(text) <= now + 86400 and tonumber(text) or nil
end

-- Without effect; but from a script that has written, a full Redis takes the rest too.
redis.call('SREM', held, '')
for _, key in ipairs({ready, scheduled, missing}) do redis.call('ZCARD', key) end
-- A key of another type in place of `held:missing` must not stop what needs it little.
local late = held .. ':missing'
local late_count = redis.pcall('ZCARD', late)
local late_usable = type(late_count) == 'number' or not foreign(late_count)
local replies, jobs = {}, {}
for i = 6, #ARGV do
  local id = ARGV[i]
  local h = redis.pcall('HMGET', job_prefix .. id, 'status', 'finished_at', '_due_at', 'type', 'held')
  if foreign(h) or redis.call('EXISTS', job_prefix .. id) == 0 or not (h[2] or h[4] or indexed(id)) then
    -- The last: without a type, an end and an entry it is a hash of the application's own, which shares this Redis.
    replies[#replies + 1] = 'gone'
  elseif h[2] and TERMINAL[h[1]] then
    replies[#replies + 1] = h[1] == 'cancelled' and 'already' or h[1]
  else
    local running = redis.call('ZSCORE', active, id)
    replies[#replies + 1] = running and 'cancelled' or 'removed'
    jobs[#jobs + 1] = {
      id = id, running = running, reborn = h[2], entered = not h[2] and entered_at(h[3]), reason = h[5] or 'missing',
    }
  end
end

local entered, done, left = 0, {}, {}
for _, job in ipairs(jobs) do
  if not done[job.id] then
    done[job.id] = true
    local key = job_prefix .. job.id
    local changes = {'status', 'cancelled', 'finished_at', now_text}
    if not job.entered then
      changes[5], changes[6] = '_due_at', now_text
      entered = entered + 1
    end
    redis.call('HSET', key, unpack(changes))
    redis.call('HDEL', key, 'held')
    redis.call('EXPIRE', key, ttl)
    redis.call('ZREM', ready, job.id)
    redis.call('ZREM', scheduled, job.id)
    redis.call('ZREM', active, job.id)
    -- A broken producer may name a new type with each job: only the set that this one is in is looked into. What an
    -- error left in another is dropped by the claim that meets it.
    redis.pcall('ZREM', held .. ':' .. job.reason, job.id)
    left[job.reason] = true
    -- `missing` last: an entry that `held:missing` alone still has would never be looked at again.
    if late_usable then redis.call('ZREM', late, job.id) end
    redis.call('ZREM', missing, job.id)
    if job.reborn then
      redis.pcall('LREM', dead, 0, job.id)
      redis.pcall('SREM', dead .. ':ids', job.id)
    end
    redis.pcall('LPUSH', finished, job.id)
    redis.pcall('LTRIM', finished, 0, finished_max - 1)
    redis.pcall('HINCRBY', counters, 'cancelled', 1)
    redis.pcall('PUBLISH', channel_prefix .. job.id, '{"status":"cancelled"}')
    if job.running then redis.pcall('PUBLISH', control, 'cancel ' .. job.id) end
  end
end
for reason in pairs(left) do
  if redis.call('EXISTS', held .. ':' .. reason) == 0 then redis.call('SREM', held, reason) end
end
if entered > 0 then redis.pcall('HINCRBY', counters, 'entered', entered) end
return replies
