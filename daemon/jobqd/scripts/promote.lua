-- promote: move jobs that are due into `ready`, put right what is due at no time in seconds, and look again at ids whose
-- hash was not there yet.
--
-- KEYS  1 ready  2 active  3 scheduled  4 held  5 missing  8 counters (the rest as in claim)
-- ARGV  1 job key prefix  2 progress channel prefix  3 how many at most  4 seconds an id may wait for its hash
-- RETURNS  {moved, milliseconds until the next is due (-1: none), {id, reason, ...} that were dropped,
--       how many ids no longer wait for their hash, {id, what, ...} that were due at no time in seconds}
--       what: milliseconds (due at a thousandth of it now) | never (due at the latest time there is now)

local ready, active, scheduled, held, missing, counters = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[8]
local job_prefix, channel_prefix, limit, patience = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local WAITING = 100
-- The year 5138. Above it a time is in milliseconds, as in `created_at`; and above this time in milliseconds it is none.
local LATEST = 100000000000
-- The year 2001: whoever writes an earlier one, such as 0, means at once.
local EARLIEST = 1000000000
local TERMINAL = {completed = true, failed = true, cancelled = true}

-- A key of another type in a hash's place means that there is no job; any other error stops the script before it writes.
local function foreign(reply)
  if not reply.err then return false end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return true end
  error(reply.err)
end

redis.call('ZREM', active, '')
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

-- As much of an id as is sent to be logged: a producer may have made it as long as any value.
local function named(id)
  if #id <= 65536 then return id end
  return string.sub(id, 1, 1000)
end

-- 1. Read.
redis.call('ZCARD', ready)
-- A key of another type in place of `held:missing` must not stop what needs it little.
local late = held .. ':missing'
local late_count = redis.pcall('ZCARD', late)
local late_usable = type(late_count) == 'number' or not foreign(late_count)
local due = redis.call('ZRANGEBYSCORE', scheduled, '-inf', now_text, 'WITHSCORES', 'LIMIT', 0, limit)
local late_due = redis.call('ZRANGEBYSCORE', scheduled, '(' .. string.format('%.0f', LATEST), '+inf', 'WITHSCORES', 'LIMIT', 0, limit)
for _, entry in ipairs(late_due) do due[#due + 1] = entry end
local moves, gone, dropped, corrections = {}, {}, {}, {}
for i = 1, #due, 2 do
  local id, at = due[i], tonumber(due[i + 1])
  local h = redis.pcall('HMGET', job_prefix .. id, 'status', 'finished_at', 'priority', '_due_at', 'type')
  local bad = foreign(h)
  if bad or (not h[1] and not h[5] and redis.call('EXISTS', job_prefix .. id) == 0) then
    gone[#gone + 1] = id
    dropped[#dropped + 1] = named(id)
    dropped[#dropped + 1] = bad and 'not a hash' or 'no hash'
  elseif (h[2] and TERMINAL[h[1]]) or redis.call('ZSCORE', active, id) then
    gone[#gone + 1] = id
  elseif at > LATEST then
    corrections[#corrections + 1] = id
    corrections[#corrections + 1] = at <= LATEST * 1000 and at / 1000 or LATEST
  else
    -- The age of a job counts from when it was due: what cannot be meant as a time must not make it too old.
    if at < EARLIEST then at = now end
    moves[#moves + 1] = {id = id, due = string.format('%.6f', at), priority = h[3], entered = entered_at(h[4])}
  end
end
-- The newest too: a broken producer's many ids without a hash must not bar those whose hash is late.
local a_while_ago = string.format('%.6f', now - 1)
local waiting, settled = redis.call('ZRANGEBYSCORE', missing, '-inf', a_while_ago, 'WITHSCORES', 'LIMIT', 0, WAITING), 0
local older = redis.call('ZCOUNT', missing, '-inf', a_while_ago)
if older > WAITING then
  local newest = redis.call('ZRANGE', missing, math.max(WAITING, older - WAITING), older - 1, 'WITHSCORES')
  for _, entry in ipairs(newest) do waiting[#waiting + 1] = entry end
end

-- 2. Write: into `ready` first.
local function score(priority)
  local value = tonumber(priority or '')
  if not value or value ~= value or value > 1e15 or value < -1e15 then value = 0 end
  -- %.17g and not tostring(), which would cut the fraction that orders equals.
  return string.format('%.17g', math.floor(value) + now / 1e10)
end

local entered = 0
for _, job in ipairs(moves) do
  redis.call('ZADD', ready, 'NX', score(job.priority), job.id)
  local changes = {'status', 'queued'}
  if not job.entered then
    changes[3], changes[4] = '_due_at', job.due
    entered = entered + 1
  end
  redis.call('HSET', job_prefix .. job.id, unpack(changes))
  redis.call('ZREM', scheduled, job.id)
  redis.pcall('PUBLISH', channel_prefix .. job.id, '{"status":"queued"}')
end
if #gone > 0 then redis.call('ZREM', scheduled, unpack(gone)) end
for i = 1, #corrections, 2 do
  local at = corrections[i + 1]
  redis.call('ZADD', scheduled, string.format('%.6f', at), corrections[i])
  corrections[i] = named(corrections[i])
  corrections[i + 1] = at < LATEST and 'milliseconds' or 'never'
end

for i = 1, #waiting, 2 do
  local id, since = waiting[i], tonumber(waiting[i + 1])
  local exists = redis.call('EXISTS', job_prefix .. id) == 1
  if exists or now - since > patience then
    -- Whoever put another key there took the score with it.
    local old = not late_usable and score('') or redis.call('ZSCORE', late, id)
    if exists and old and not redis.call('ZSCORE', active, id) then
      redis.call('ZADD', ready, 'NX', old, id)
    elseif not exists then
      dropped[#dropped + 1] = named(id)
      dropped[#dropped + 1] = 'no hash'
    end
    if late_usable then redis.call('ZREM', late, id) end
    redis.call('ZREM', missing, id)
    settled = settled + 1
  end
end
if #waiting > 0 and redis.call('EXISTS', late) == 0 then redis.call('SREM', held, 'missing') end
if entered > 0 then redis.pcall('HINCRBY', counters, 'entered', entered) end
if #dropped > 0 then redis.pcall('HINCRBY', counters, 'dropped', #dropped / 2) end

local next_due = redis.call('ZRANGE', scheduled, 0, 0, 'WITHSCORES')
local wait = -1
if next_due[2] then wait = math.max(0, math.ceil((tonumber(next_due[2]) - now) * 1000)) end
return {#moves, math.min(wait, 3600000), dropped, settled, corrections}
