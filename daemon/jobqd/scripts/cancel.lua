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

redis.call('ZREM', active, '')
local time = redis.call('TIME')
local now_text = string.format('%.6f', tonumber(time[1]) + tonumber(time[2]) / 1000000)

for _, key in ipairs({ready, scheduled, missing, held .. ':missing'}) do redis.call('ZCARD', key) end
local replies, jobs = {}, {}
for i = 6, #ARGV do
  local id = ARGV[i]
  local h = redis.pcall('HMGET', job_prefix .. id, 'status', 'finished_at', '_due_at', 'type')
  if foreign(h) or redis.call('EXISTS', job_prefix .. id) == 0 then
    replies[#replies + 1] = 'gone'
  elseif h[2] and TERMINAL[h[1]] then
    replies[#replies + 1] = h[1] == 'cancelled' and 'already' or h[1]
  else
    local running = redis.call('ZSCORE', active, id)
    replies[#replies + 1] = running and 'cancelled' or 'removed'
    jobs[#jobs + 1] = {id = id, running = running, reborn = h[2], entered = not h[2] and tonumber(h[3] or '')}
  end
end

local reasons = redis.call('SMEMBERS', held)
local entered, done = 0, {}
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
    for _, reason in ipairs(reasons) do
      redis.pcall('ZREM', held .. ':' .. reason, job.id)
      if redis.call('EXISTS', held .. ':' .. reason) == 0 then redis.call('SREM', held, reason) end
    end
    -- `missing` last: an entry that `held:missing` alone still has would never be looked at again.
    redis.call('ZREM', held .. ':missing', job.id)
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
if entered > 0 then redis.pcall('HINCRBY', counters, 'entered', entered) end
return replies
