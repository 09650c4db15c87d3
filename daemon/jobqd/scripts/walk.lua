-- walk: one step of the slow walk over all job hashes, which repairs what foreign writes and lost writes left behind.
--
-- KEYS  1 ready  2 active  3 scheduled  4 held  5 missing  6 dead  7 finished  8 counters
-- ARGV  1 job key prefix  2 SCAN cursor  3 SCAN pattern  4 SCAN count  5 max_age (s)  6 TTL (s) for an ended job without one
--       7 seconds after which a queued job in no index is reported  8 '1': put such jobs into `ready` (repair)
-- RETURNS  {next cursor, {id, what, ...}}; what: restored | expired | unacknowledged | enqueued | persisted | ttl
--
-- Only hashes with `status` and `type` are jobs; others belong to the application. Each step can be repeated at will.

local ready, active, scheduled, held, dead, counters = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[6], KEYS[8]
local job_prefix, cursor, pattern, count = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local max_age, ended_ttl, report_age, repair = tonumber(ARGV[5]), ARGV[6], tonumber(ARGV[7]), ARGV[8] == '1'
local TERMINAL = {completed = true, failed = true, cancelled = true}

redis.call('ZREM', active, '')
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local now_text = string.format('%.6f', now)
local reports, entered = {}, 0

-- A key of another type in a hash's place means that there is no job; any other error stops the script before it writes.
local function foreign(reply)
  if not reply.err then return false end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return true end
  error(reply.err)
end

-- As much of an id as is sent to be logged: a producer may have made it as long as any value.
local function named(id)
  if #id <= 65536 then return id end
  return string.sub(id, 1, 1000)
end

local function report(id, what)
  reports[#reports + 1] = named(id)
  reports[#reports + 1] = what
end

-- When an enqueue was first due: counted if it stands there as our scripts write it, or did: as Redis shows the score of a
-- time after 2001. A day, for a clock that was set back.
local function entered_at(text)
  if not text or #text > 24 then return nil end
  local ours = string.find(text, '^%d+%.%d%d%d%d%d%d$') or string.find(text, '^%d%d%d%d%d%d%d%d%d%d%.?%d*$')
  return ours and tonumber(text) <= now + 86400 and tonumber(text) or nil
end

local function bare(priority)
  local value = tonumber(priority or '')
  if not value or value ~= value or value > 1e15 or value < -1e15 then return '0' end
  return string.format('%.0f', math.floor(value))
end

local function created(text)
  local value = tonumber(text or '')
  if not value or value ~= value then return nil end
  if value > 1e11 then return value / 1000 end
  return value
end

-- A key of another type in place of `held:missing` must not stop what needs it little.
local late = held .. ':missing'
local late_count = redis.pcall('ZCARD', late)
local late_usable = type(late_count) == 'number' or not foreign(late_count)

local function where(id, reason)
  if redis.call('ZSCORE', ready, id) then return 'ready' end
  if redis.call('ZSCORE', active, id) then return 'active' end
  if redis.call('ZSCORE', scheduled, id) then return 'scheduled' end
  if reason then
    local score = redis.pcall('ZSCORE', held .. ':' .. reason, id)
    if type(score) == 'string' then return 'held' end
  end
  if late_usable and redis.call('ZSCORE', late, id) then return 'held' end
  return nil
end

local function put_back(key, id, priority)
  redis.call('ZADD', ready, bare(priority), id)
  redis.call('HSET', key, 'status', 'queued')
  -- Whoever held it last is refused from now on.
  redis.call('HDEL', key, 'worker')
end

local function look(key, id)
  local h = redis.pcall('HMGET', key, 'status', 'type', 'finished_at', 'created_at', '_due_at', 'held', 'priority')
  if h.err or not h[1] or not h[2] then return end
  if h[3] and TERMINAL[h[1]] then
    if redis.call('TTL', key) == -1 then
      redis.call('EXPIRE', key, ended_ttl)
      report(id, 'ttl')
    end
    return
  end
  -- A new enqueue of an ended id: the time is the old one's, and claim or cancel will count it.
  local reborn = h[3] and h[1] == 'queued'
  local place, due = where(id, h[6]), not reborn and entered_at(h[5])
  if place and redis.call('TTL', key) >= 0 then
    redis.call('PERSIST', key)
    report(id, 'persisted')
  end
  if not place then
    -- Only our scripts write this time, at an enqueue's first move: it was acknowledged.
    if due then
      put_back(key, id, h[7])
      report(id, 'restored')
    elseif repair then
      put_back(key, id, h[7])
      report(id, 'enqueued')
    elseif created(h[4]) and now - created(h[4]) > report_age then
      report(id, 'unacknowledged')
    end
  elseif not due and not reborn and (place == 'ready' or place == 'held') then
    redis.call('HSET', key, '_due_at', now_text)
    entered = entered + 1
  elseif due and now - due > max_age and (place == 'held' or place == 'scheduled') then
    -- The next claim takes an expired job whatever its type, and dead-letters it the one way there is.
    redis.call('ZADD', ready, bare(h[7]), id)
    redis.call('HSET', key, 'status', 'queued')
    redis.call('ZREM', scheduled, id)
    if h[6] then
      redis.pcall('ZREM', held .. ':' .. h[6], id)
      redis.call('HDEL', key, 'held')
    end
    report(id, 'expired')
  end
end

for _, key in ipairs({ready, active, scheduled}) do redis.call('ZCARD', key) end
redis.call('LLEN', dead)
local page = redis.call('SCAN', cursor, 'MATCH', pattern, 'COUNT', count, 'TYPE', 'hash')
for _, key in ipairs(page[2]) do look(key, string.sub(key, #job_prefix + 1)) end

for _ = 1, 100 do
  local tail = redis.call('LINDEX', dead, -1)
  if not tail or redis.call('EXISTS', job_prefix .. tail) == 1 then break end
  redis.call('RPOP', dead)
  redis.pcall('SREM', dead .. ':ids', tail)
end
-- Somebody has emptied the list by hand. Without the set, settle reads the list.
local listed = redis.pcall('SCARD', dead .. ':ids')
if type(listed) == 'number' and listed > redis.call('LLEN', dead) + 1000 then redis.call('DEL', dead .. ':ids') end
-- A few at a time: a broken producer may name a new type with each job.
local reasons = redis.pcall('SRANDMEMBER', held, 20)
if not reasons.err then
  for _, reason in ipairs(reasons) do
    local key = held .. ':' .. reason
    local first = redis.pcall('ZRANGE', key, 0, 9)
    if not first.err then
      for _, id in ipairs(first) do
        -- An id that waits for its hash is promote's to give up.
        if reason ~= 'missing' and redis.call('EXISTS', job_prefix .. id) == 0 then redis.call('ZREM', key, id) end
      end
      if redis.call('EXISTS', key) == 0 then redis.call('SREM', held, reason) end
    end
  end
end
if entered > 0 then redis.pcall('HINCRBY', counters, 'entered', entered) end
return {page[1], reports}
