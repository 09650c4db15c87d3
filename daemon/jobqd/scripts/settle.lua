-- settle: record how runs ended. The only way in which a leased job changes hands.
--
-- KEYS  1 ready  2 active  3 scheduled  4 held  5 missing  6 dead  7 finished  8 counters
-- ARGV  1 job key prefix  2 progress channel prefix  3 dead_max  4 TTL (s) of an id trimmed from the dead letters
--       5 how many ended ids `finished` keeps  6 '' or Redis's clock when lapsed leases were found, then for each run:
--       id, worker, fence, guard, to, charge, delay (s), ttl (s), result, error, error_type, traceback, history
--       guard    run: the owner itself.  lapse: only if the lease has run out, and had when it was found, or is longer than
--                any daemon's.  dead: its daemon is known to be dead.
--       to       completed | dead | ready | retrying | scheduled
--       charge   the field raised by one: attempts | crashes | interruptions | '' (none)
--       history  '' or a JSON object to be kept in `_history`, to which the time is added
-- RETURNS  one text a run: ok | already (this settle was accepted before) | cancelled | stale | renewed | gone
--
-- A write is accepted only if (worker, fence) is the job's and its id is active, so that sending it again is safe.

local ready, active, scheduled, dead, finished, counters = KEYS[1], KEYS[2], KEYS[3], KEYS[6], KEYS[7], KEYS[8]
local job_prefix, channel_prefix, dead_ids = ARGV[1], ARGV[2], dead .. ':ids'
local dead_max, trimmed_ttl, finished_max = tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])

local STRIDE, FIRST = 13, 7
-- Seconds: no lease is longer. lapsed.lua has the same.
local LEASE_MAX = 86400
local HISTORY_LINES, HISTORY_BYTES = 10, 20000
local TERMINAL = {completed = true, failed = true, cancelled = true}
local STATUS = {completed = 'completed', dead = 'failed', ready = 'queued', retrying = 'retrying', scheduled = 'scheduled'}
local COUNTER = {completed = 'completed', dead = 'failed', ready = 'returned', retrying = 'retried', scheduled = 'snoozed'}

local function integer(text)
  if text and #text <= 15 and string.find(text, '^%d+$') then return tonumber(text) end
  return 0
end

-- A key of another type in a hash's place means that there is no job; any other error stops the script before it writes.
local function foreign(reply)
  if not reply.err then return false end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return true end
  error(reply.err)
end

local function seconds(text)
  local value = tonumber(text)
  if not value or value ~= value or value < 0 then return 0 end
  -- Three hundred years, and with the present time no time in milliseconds, as promote would read it.
  return math.min(value, 1e10)
end

-- A first write, even one without effect, lets the rest succeed when Redis is at maxmemory.
redis.call('ZREM', active, '')
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local now_text = string.format('%.6f', now)
-- A clock that jumps, or a fail-over to one that is ahead, must not make a lease lapse after it was judged.
local found_at = tonumber(ARGV[6]) or now
local lapsed_by, too_long = math.min(now, found_at), math.max(now, found_at) + LEASE_MAX

-- 1. Read and judge the whole batch; the indexes are of the right type, or this stops before any write.
redis.call('ZCARD', ready)
redis.call('ZCARD', scheduled)
redis.call('LLEN', dead)
local count = (#ARGV - FIRST + 1) / STRIDE
local ids = {}
for i = 1, count do ids[i] = ARGV[FIRST + (i - 1) * STRIDE] end
local leases = count > 0 and redis.call('ZMSCORE', active, unpack(ids)) or {}

local function judge(run, lease)
  local h = redis.pcall('HMGET', run.key, 'worker', 'fence', 'status', 'finished_at', 'attempts', 'crashes',
    'interruptions', 'priority', 'error', '_ended', '_history')
  if foreign(h) then return 'gone' end
  run.hash = h
  local worker, status = h[1] or '', h[3]
  if not h[2] and not status and not h[1] and redis.call('EXISTS', run.key) == 0 then return 'gone' end
  if worker == run.worker and integer(h[2]) == run.fence then
    if lease then
      if h[4] and TERMINAL[status] then
        run.leftover = true
        return status == 'cancelled' and status or 'already'
      end
      if run.guard == 'lapse' and tonumber(lease) >= lapsed_by and tonumber(lease) <= too_long then return 'renewed' end
      -- An error cut this very settle short after it was recorded: finish it, charge it once.
      if h[10] == run.mark then run.charge, run.history = '', '' end
      return 'ok'
    end
    if status == 'cancelled' then return 'cancelled' end
    -- Its lease was taken: this is what the lost run still sends.
    if status == 'processing' or h[10] == '-' .. run.name then return 'stale' end
    return 'already'
  end
  if h[10] == run.name then return 'already' end
  if status == 'cancelled' then return 'cancelled' end
  return 'stale'
end

local replies, accepted, leftovers, seen = {}, {}, {}, {}
for i = 1, count do
  local at = FIRST + (i - 1) * STRIDE
  local run = {
    id = ARGV[at], key = job_prefix .. ARGV[at], worker = ARGV[at + 1], fence = integer(ARGV[at + 2]), guard = ARGV[at + 3],
    to = ARGV[at + 4], charge = ARGV[at + 5], delay = seconds(ARGV[at + 6]), ttl = ARGV[at + 7], result = ARGV[at + 8],
    error = ARGV[at + 9], error_type = ARGV[at + 10], traceback = ARGV[at + 11], history = ARGV[at + 12],
  }
  run.name = run.worker .. ':' .. run.fence
  run.mark = run.guard == 'run' and run.name or '-' .. run.name
  if seen[run.id] == run.name then
    replies[i] = 'already'
  else
    replies[i] = judge(run, leases[i])
    if replies[i] == 'ok' then
      seen[run.id] = run.name
      accepted[#accepted + 1] = run
    elseif run.leftover then
      leftovers[#leftovers + 1] = run.id
    end
  end
end

-- 2. Write: into the new index first, out of `active` last, so that an id is never in no index.
local tally = {}
local function add(name) tally[name] = (tally[name] or 0) + 1 end

local function history(old, entry)
  if not old or #old > HISTORY_BYTES then old = '' end
  local lines = {}
  for line in string.gmatch(old, '[^\n]+') do lines[#lines + 1] = line end
  lines[#lines + 1] = '{"at":' .. now_text .. ',' .. string.sub(entry, 2)
  return table.concat(lines, '\n', math.max(1, #lines - HISTORY_LINES + 1))
end

local function whole(text)
  local value = tonumber(text or '')
  if not value or value ~= value or value > 1e15 or value < -1e15 then return '0' end
  return string.format('%.0f', math.floor(value))
end

local function place(run)
  if run.to == 'ready' then
    -- The bare priority goes ahead of its equals: this job has waited its turn already.
    redis.call('ZADD', ready, whole(run.hash[8]), run.id)
  elseif run.to == 'retrying' or run.to == 'scheduled' then
    redis.call('ZADD', scheduled, string.format('%.6f', now + run.delay), run.id)
  elseif run.to == 'dead' then
    -- LREM reads the whole list: only for an id that may be in it, or if the set does not know all that are.
    local new = redis.pcall('SADD', dead_ids, run.id)
    if new ~= 1 or redis.call('SCARD', dead_ids) <= redis.call('LLEN', dead) then redis.call('LREM', dead, 0, run.id) end
    redis.call('LPUSH', dead, run.id)
  end
end

local CHARGED = {attempts = 5, crashes = 6, interruptions = 7}

local function record(run)
  local h, terminal = run.hash, run.to == 'completed' or run.to == 'dead'
  local changes = {'status', STATUS[run.to]}
  local function set(field, value)
    changes[#changes + 1] = field
    changes[#changes + 1] = value
  end
  if run.charge ~= '' then set(run.charge, integer(h[CHARGED[run.charge]]) + 1) end
  if terminal then set('finished_at', now_text) end
  if run.to == 'completed' then set('result', run.result) end
  if run.error ~= '' then
    set('error', run.error)
    set('error_type', run.error_type)
    set('traceback', run.traceback)
  end
  if run.history ~= '' then set('_history', history(h[11], run.history)) end
  if not terminal then set('_ended', run.mark) end
  redis.call('HSET', run.key, unpack(changes))
  if run.to == 'completed' and h[9] then redis.call('HDEL', run.key, 'error', 'error_type', 'traceback') end
  if terminal then redis.call('EXPIRE', run.key, run.ttl) end
end

local ended, left, unready, unscheduled = {}, {}, {}, {}
for i, run in ipairs(accepted) do
  place(run)
  record(run)
  if run.to == 'completed' or run.to == 'dead' then ended[#ended + 1] = run.id end
  left[i] = run.id
  if run.to ~= 'ready' then unready[#unready + 1] = run.id end
  if run.to ~= 'retrying' and run.to ~= 'scheduled' then unscheduled[#unscheduled + 1] = run.id end
  add(COUNTER[run.to])
  if run.charge == 'crashes' and run.guard == 'run' then add('crashed') end
  if run.charge == 'crashes' and run.guard ~= 'run' then add('lapsed') end
  if run.charge == 'interruptions' then add('interrupted') end
  redis.pcall('PUBLISH', channel_prefix .. run.id, '{"status":"' .. STATUS[run.to] .. '"}')
end
for _, id in ipairs(leftovers) do left[#left + 1] = id end
for i = 1, count do
  if replies[i] == 'stale' then add('refused') end
end
if #left > 0 then redis.call('ZREM', active, unpack(left)) end
for _, run in ipairs(accepted) do
  -- Without its worker the job refuses what the lost run may still send. Only now: until it is out of `active`, the
  -- worker is what a repeated settle finds it by.
  if run.guard ~= 'run' then redis.call('HDEL', run.key, 'worker') end
end
if #unready > 0 then redis.call('ZREM', ready, unpack(unready)) end
if #unscheduled > 0 then redis.call('ZREM', scheduled, unpack(unscheduled)) end
if #ended > 0 and finished_max > 0 then
  redis.pcall('LPUSH', finished, unpack(ended))
  redis.pcall('LTRIM', finished, 0, finished_max - 1)
end
for _ = 1, 100 do
  if redis.call('LLEN', dead) <= dead_max then break end
  local id = redis.call('RPOP', dead)
  redis.pcall('SREM', dead_ids, id)
  if redis.pcall('HGET', job_prefix .. id, 'status') == 'failed' then redis.call('EXPIRE', job_prefix .. id, trimmed_ttl) end
end
for name, value in pairs(tally) do redis.pcall('HINCRBY', counters, name, value) end
return replies
