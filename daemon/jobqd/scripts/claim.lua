-- claim: lease the most urgent jobs that this daemon may run now, and put aside those it may not.
--
-- KEYS  1 ready  2 active  3 scheduled  4 held  5 missing  6 dead  7 finished  8 counters  9 claim record of this worker
-- ARGV  1 job key prefix  2 progress channel prefix  3 worker  4 claim number  5 want (1..500)  6 lease (s)
--       7 most ids put aside in one call  8 record's TTL (ms)  9 max_age (s)
--       10 crashes from which on a job is a suspect  11 how many more suspects may run here (-1: no cap)
--       12 max_payload: most bytes of the payload and the producer's own fields together (-1: no limit)
--       13 max_result: most bytes of a checkpoint (-1: no limit)
--       then pairs: type, how many more of it may run here (-1: no cap). A type not named has no handler here.
-- RETURNS  {now, more, {{id, fence, score, {field, value, ...}, excess}, ...}, {id, reason, ...}, {type, ...}, {key, ...}}
--       more: 1 when the head was full of jobs put aside, or of large ones; call again. excess: 0, or {name, bytes} for a
--       job that is not to run: a field of the daemon beyond its limit, or with the name '' payload and own fields beyond
--       max_payload; such a job comes with small fields of the daemon only. The fourth names ready entries that were
--       dropped, and why; the fifth the types that were put aside because no handler here is theirs; the last the held sets
--       in whose place a key of another type stands: what belongs there is in `scheduled` for a while.
--
-- Sending it again with the same number gives the same leases; an older number gives none (a late copy of a request).

local ready, active, scheduled, held, missing, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local counters, record = KEYS[8], KEYS[9]
local job_prefix, channel_prefix, worker = ARGV[1], ARGV[2], ARGV[3]
local number, want, lease = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local aside_max, record_ttl, max_age = tonumber(ARGV[7]), ARGV[8], tonumber(ARGV[9])
local suspicion, suspect_room = tonumber(ARGV[10]), tonumber(ARGV[11])
local max_payload, max_result = tonumber(ARGV[12]), tonumber(ARGV[13])

local TERMINAL = {completed = true, failed = true, cancelled = true}
-- Seconds after which a job whose held set cannot be had is looked at again, and an id without a hash.
local FOREIGN_DELAY, PATIENCE = 60, 5
-- The reply's bytes, and those that are read: beyond them the rest is for the next claim. A type is at most 128 characters.
local REPLY_BYTES, READ_BYTES, TYPE_BYTES, FIELD_BYTES = 8388608, 67108864, 512, 4096
-- What stays behind and is longer is none of ours: it goes, or each claim would read it again.
local JUNK_BYTES = 65536
-- An id is sent wherever its job goes. A longer one is dropped.
local ID_BYTES = 131072
-- Most bytes of a field of the daemon that is handed out. 0: nobody there reads it, so it stays behind, as does whatever
-- else begins with `_`. Without this a producer could have any amount sent, and a reply that never arrives is asked for again.
local LIMITS = {payload = math.huge, checkpoint = max_result < 0 and math.huge or max_result}
for name in string.gmatch('status type created_at priority attempts max_attempts crashes interruptions timeout', '%S+') do
  LIMITS[name] = FIELD_BYTES
end
for name in string.gmatch('held started_at finished_at progress step eta_seconds result error error_type traceback fence '
  .. 'worker', '%S+') do
  LIMITS[name] = 0
end
-- Of a new enqueue of an ended id: what the old one left behind is forgotten.
local REBORN_LIMITS = {}
for name, limit in pairs(LIMITS) do REBORN_LIMITS[name] = limit end
for name in string.gmatch('attempts crashes interruptions checkpoint', '%S+') do REBORN_LIMITS[name] = 0 end

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

-- Whether ids can be put into a held set: a key of another type there must not stop the jobs that need none.
local foreign_keys = {}
local function usable(key)
  local reply = redis.pcall('ZCARD', key)
  if type(reply) == 'number' or not foreign(reply) then return true end
  foreign_keys[#foreign_keys + 1] = key
  return false
end

-- A first write, even one without effect, lets the rest succeed when Redis is at maxmemory.
redis.call('ZREM', active, '')
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local now_text = string.format('%.6f', now)
local until_text = string.format('%.6f', now + lease)

local read_bytes = 0

local function hash(id)
  local flat = redis.pcall('HGETALL', job_prefix .. id)
  if foreign(flat) then return nil, nil, 'not a hash' end
  local fields, bytes = {}, 0
  for i = 1, #flat, 2 do
    local name, value = flat[i], flat[i + 1]
    fields[name] = value
    bytes = bytes + #name + #value
  end
  read_bytes = read_bytes + bytes
  -- One that is too long to be a type needs to be no longer than that.
  if fields.type and #fields.type > TYPE_BYTES then fields.type = string.sub(fields.type, 1, TYPE_BYTES + 1) end
  return flat, fields
end

-- Keep of a hash, in its place, what is handed out; returns its bytes, those of the arguments, a field beyond its limit, and
-- the names of what is to go.
local function strip(flat, fields, limits)
  local kept, bytes, arguments, excess, junk = 0, 0, 0, nil, nil
  for i = 1, #flat, 2 do
    local name, value = flat[i], flat[i + 1]
    local limit = limits[name]
    if name == 'type' then
      value = fields.type
      flat[i + 1] = value
    elseif name == 'payload' then
      arguments = arguments + #value
    elseif not limit and string.byte(name) ~= 95 then
      limit = math.huge
      arguments = arguments + #name + #value
    end
    if limit and limit > 0 then
      if #value > limit then excess = {name, #value} end
      bytes = bytes + #name + #value
      if kept + 1 < i then flat[kept + 1], flat[kept + 2] = name, value end
      kept = kept + 2
    elseif #name + #value > JUNK_BYTES then
      junk = junk or {}
      junk[#junk + 1] = name
    end
  end
  for i = #flat, kept + 1, -1 do flat[i] = nil end
  return bytes, arguments, excess, junk
end

-- When an enqueue was first due: counted if it stands there as our scripts write it, or did: as Redis shows the score of a
-- time after 2001. A day, for a clock that was set back.
local function entered_at(text)
  if not text or #text > 24 then return nil end
  local ours = string.find(text, '^%d+%.%d%d%d%d%d%d$') or string.find(text, '^%d%d%d%d%d%d%d%d%d%d%.?%d*$')
  return ours and tonumber(text) <= now + 86400 and tonumber(text) or nil
end

-- A claimed job as it is handed out; of one that is too large, what the daemon needs to bury it.
local function handed(id, fence, score, flat, fields, reborn, due)
  local limits = reborn and REBORN_LIMITS or LIMITS
  local bytes, arguments, excess, junk = strip(flat, fields, limits)
  if due then
    flat[#flat + 1] = '_due_at'
    flat[#flat + 1] = fields._due_at
  end
  if max_payload >= 0 and arguments > max_payload then excess = {'', arguments} end
  if not excess then return {id, fence, score, flat, 0}, bytes, junk end
  local small = {}
  for i = 1, #flat, 2 do
    if (limits[flat[i]] == FIELD_BYTES or flat[i] == '_due_at') and #flat[i + 1] <= FIELD_BYTES then
      small[#small + 1] = flat[i]
      small[#small + 1] = flat[i + 1]
    end
  end
  return {id, fence, score, small, excess}, FIELD_BYTES, junk
end

-- 1. Has this very claim been made before?
local last = redis.pcall('GET', record)
if type(last) == 'table' then foreign(last) end
if type(last) == 'string' then
  local ok, saved = pcall(cmsgpack.unpack, last)
  if ok and type(saved) == 'table' and type(saved[1]) == 'number' and number <= saved[1] then
    local again, sent = {}, 0
    if number == saved[1] then
      for i = 2, #saved, 3 do
        local id, fence, score = saved[i], saved[i + 1], saved[i + 2]
        -- A hash may have grown meanwhile: the lease of what is more than a reply may hold lapses.
        local flat, fields
        if sent < REPLY_BYTES and read_bytes < READ_BYTES then flat, fields = hash(id) end
        if flat and fields.worker == worker and integer(fields.fence) == fence and redis.call('ZSCORE', active, id) then
          redis.call('ZADD', active, 'XX', until_text, id)
          local out, bytes = handed(id, fence, score, flat, fields, false, entered_at(fields._due_at))
          again[#again + 1], sent = out, sent + bytes
        end
      end
    end
    redis.call('ZRANGE', ready, 0, 0)
    return {now_text, 0, again, {}, {}, {}}
  end
end

-- 2. Read: the lowest scores among ready and the held sets of the types that may run.
local allowance = {}
for i = 14, #ARGV, 2 do allowance[ARGV[i]] = tonumber(ARGV[i + 1]) end

local chunk = math.max(want, 16)
local sources, has_missing = {{key = ready, offset = 0, at = 1, items = {}, drop = {}}}, false
redis.call('ZCARD', scheduled)
if redis.call('SCARD', held) > 0 then
  -- Not all its members: a broken producer may name a new type with each job.
  local reasons = {'missing'}
  if suspect_room ~= 0 then reasons[2] = 'suspect' end
  for job_type, room in pairs(allowance) do
    if room ~= 0 then reasons[#reasons + 1] = 'type:' .. job_type end
  end
  local named = redis.call('SMISMEMBER', held, unpack(reasons))
  has_missing = named[1] == 1
  for i = 2, #reasons do
    if named[i] == 1 then
      local key = held .. ':' .. reasons[i]
      sources[#sources + 1] = {key = key, reason = reasons[i], offset = 0, at = 1, items = {}, drop = {}}
    end
  end
end

local function head(source)
  if source.at > #source.items then
    if source.done then return nil end
    local items
    if source.reason then
      items = redis.pcall('ZRANGE', source.key, source.offset, source.offset + chunk - 1, 'WITHSCORES')
      if items.err then items = {} end
    else
      items = redis.call('ZRANGE', source.key, source.offset, source.offset + chunk - 1, 'WITHSCORES')
    end
    source.items, source.at, source.offset = items, 1, source.offset + chunk
    source.done = #items < 2 * chunk
    if #items == 0 then return nil end
    local ids = {}
    for i = 1, #items, 2 do ids[#ids + 1] = items[i] end
    source.leased = redis.call('ZMSCORE', active, unpack(ids))
  end
  return tonumber(source.items[source.at + 1])
end

local function most_urgent()
  local best, best_score
  for _, source in ipairs(sources) do
    local score = head(source)
    -- On equal scores a held job goes first: it has been waiting longer.
    if score and (not best or score < best_score or (score == best_score and source.reason)) then
      best, best_score = source, score
    end
  end
  return best
end

local taken, aside, absent, running = {}, {}, {}, {}
-- Ids that leave every index they are met in.
local leaving = {}
local unready, seen, reports, asides, reply_bytes = {}, {}, {}, {}, 0

-- As much of an id as is sent to be logged: a producer may have made it as long as any value.
local function named(id)
  if #id <= 65536 then return id end
  return string.sub(id, 1, 1000)
end

local function report(id, reason)
  reports[#reports + 1] = named(id)
  reports[#reports + 1] = reason
end

local function drop(id, reason)
  unready[#unready + 1] = id
  leaving[id] = true
  if reason then report(id, reason) end
end

local function consider(source, id, score, leased)
  -- Every script removes the empty id from `active` as its first write, so such a job could hold no lease.
  if id == '' then return drop(id, 'empty id') end
  if #id > ID_BYTES then return drop(id, 'id of ' .. #id .. ' bytes') end
  local flat, fields, bad = hash(id)
  if bad then return drop(id, bad) end
  if #flat == 0 then
    if source.reason then
      -- It may be ready too, as an enqueue of which ZADD came before HSET: there it is to be met again.
      source.drop[#source.drop + 1], seen[id] = id, nil
      report(id, 'no hash')
    else
      absent[#absent + 1] = {id = id, score = score}
      leaving[id] = true
    end
    return
  end
  -- Before the lease: what a settle that was cut short left in `active` has ended all the same.
  if fields.finished_at and TERMINAL[fields.status] then return drop(id, fields.status) end
  if leased then
    if fields.status ~= 'processing' then running[#running + 1] = id end
    return drop(id)
  end
  local reborn = fields.finished_at ~= nil and fields.status == 'queued'
  local due = not reborn and entered_at(fields._due_at)
  local expired = due and now - due > max_age
  local job_type = fields.type or ''
  local allowed = allowance[job_type]
  -- A type that no handler can have would wait until max_age.
  if job_type == '' or #job_type > TYPE_BYTES or string.find(job_type, '[%c ]') or expired then allowed = -1 end
  local suspect = suspect_room >= 0 and not (reborn or expired) and integer(fields.crashes) >= suspicion
  local reason
  if not allowed or allowed == 0 then
    reason = 'type:' .. job_type
  elseif suspect and suspect_room == 0 then
    reason = 'suspect'
  end
  if reason then
    if source.reason == reason then
      -- It may be ready too: there it is to be met again.
      source.done, source.items, seen[id] = true, {}, nil
    else
      -- An entry whose job has another type by now moves on, or it would bar the way of those behind it.
      if source.reason then source.drop[#source.drop + 1] = id end
      if asides[reason] == nil then asides[reason] = usable(held .. ':' .. reason) end
      aside[#aside + 1] = {id = id, score = score, reason = reason, fields = fields, reborn = reborn, due = due}
    end
    return
  end
  if allowed > 0 then allowance[job_type] = allowed - 1 end
  if suspect then suspect_room = suspect_room - 1 end
  leaving[id] = true
  local fence = integer(fields.fence) + 1
  local out, out_bytes, junk = handed(id, fence, score, flat, fields, reborn, due)
  reply_bytes = reply_bytes + #id + out_bytes
  taken[#taken + 1] = {
    id = id, score = score, out = out, fields = fields, reborn = reborn, due = due, fence = fence, reason = source.reason, junk = junk,
  }
end

local looked = 0
while #taken < want and looked - #taken < aside_max and reply_bytes < REPLY_BYTES and read_bytes < READ_BYTES do
  local source = most_urgent()
  if not source then break end
  local at = source.at
  local id, score, leased = source.items[at], source.items[at + 1], source.leased[(at + 1) / 2]
  source.at = at + 2
  if not seen[id] then
    seen[id] = true
    consider(source, id, score, leased)
    if unready[#unready] == id then source.drop[#source.drop + 1] = id end
  elseif leaving[id] then
    source.drop[#source.drop + 1] = id
  end
  looked = looked + 1
end
local full = looked - #taken >= aside_max or reply_bytes >= REPLY_BYTES or read_bytes >= READ_BYTES
local more = (#taken < want and full) and 1 or 0
local missing_usable = false
if #absent > 0 or has_missing then
  redis.call('ZCARD', missing)
  missing_usable = usable(held .. ':missing')
end

-- 3. Write. A lease first, so that an id is never in no index.
local entered = 0

local function priority(score)
  local value = math.floor(tonumber(score))
  return string.format('%.0f', math.max(-1e15, math.min(1e15, value)))
end

local function enter(job, changes)
  if not job.due then
    changes[#changes + 1] = '_due_at'
    changes[#changes + 1] = now_text
    entered = entered + 1
  end
end

local function forget(key, id)
  redis.call('HDEL', key, 'attempts', 'crashes', 'interruptions', 'result', 'error', 'error_type', 'traceback',
    'checkpoint', 'finished_at', 'progress', 'step', 'eta_seconds', '_history', '_ended')
  redis.call('PERSIST', key)
  redis.pcall('LREM', dead, 0, id)
  redis.pcall('SREM', dead .. ':ids', id)
end

local taken_ids, saved = {}, {number}
if #taken > 0 then
  local leases = {}
  for i, job in ipairs(taken) do
    taken_ids[i] = job.id
    leases[2 * i - 1], leases[2 * i] = until_text, job.id
    saved[3 * i - 1], saved[3 * i], saved[3 * i + 1] = job.id, job.fence, job.score
  end
  redis.call('ZADD', active, unpack(leases))
end
redis.call('SET', record, cmsgpack.pack(saved), 'PX', record_ttl)
for _, job in ipairs(taken) do
  local key, fields = job_prefix .. job.id, job.fields
  local changes = {'status', 'processing', 'worker', worker, 'fence', job.fence, 'started_at', now_text}
  local level = priority(job.score)
  if fields.priority ~= level then
    changes[#changes + 1] = 'priority'
    changes[#changes + 1] = level
  end
  enter(job, changes)
  if job.reborn then forget(key, job.id) end
  if job.junk then
    for _, name in ipairs(job.junk) do redis.call('HDEL', key, name) end
  end
  redis.call('HSET', key, unpack(changes))
  if fields.held or fields.progress then redis.call('HDEL', key, 'held', 'progress', 'step', 'eta_seconds') end
  if fields.held then redis.pcall('ZREM', held .. ':' .. fields.held, job.id) end
  redis.pcall('PUBLISH', channel_prefix .. job.id, '{"status":"processing"}')
end
local strangers, unhandled, unscheduled = {}, {}, {}
for _, job in ipairs(aside) do
  local key = job_prefix .. job.id
  local changes
  if asides[job.reason] then
    changes = {'status', 'queued', 'held', job.reason}
    redis.call('ZADD', held .. ':' .. job.reason, job.score, job.id)
    redis.call('SADD', held, job.reason)
    unscheduled[#unscheduled + 1] = job.id
  else
    changes = {'status', 'scheduled', 'priority', priority(job.score)}
    redis.call('ZADD', scheduled, string.format('%.6f', now + FOREIGN_DELAY), job.id)
    redis.call('HDEL', key, 'held')
  end
  enter(job, changes)
  if job.reborn then forget(key, job.id) end
  if job.fields.held and job.fields.held ~= job.reason then redis.pcall('ZREM', held .. ':' .. job.fields.held, job.id) end
  redis.call('HSET', key, unpack(changes))
  local job_type = job.fields.type
  if job_type and not allowance[job_type] and not strangers[job_type] then
    strangers[job_type] = true
    unhandled[#unhandled + 1] = job_type
  end
end
for _, job in ipairs(absent) do
  if missing_usable then
    redis.call('ZADD', missing, 'NX', now_text, job.id)
    redis.call('ZADD', held .. ':missing', job.score, job.id)
    redis.call('SADD', held, 'missing')
  else
    redis.call('ZADD', scheduled, string.format('%.6f', now + PATIENCE), job.id)
  end
end
for _, id in ipairs(running) do redis.call('HSET', job_prefix .. id, 'status', 'processing') end

-- 4. Out of the indexes they were in.
for _, job in ipairs(aside) do unready[#unready + 1] = job.id end
for _, job in ipairs(absent) do unready[#unready + 1] = job.id end
if #taken_ids > 0 then
  redis.call('ZREM', ready, unpack(taken_ids))
  redis.call('ZREM', scheduled, unpack(taken_ids))
  if has_missing then
    -- `missing` last: an entry that `held:missing` alone still has would never be looked at again.
    if missing_usable then redis.call('ZREM', held .. ':missing', unpack(taken_ids)) end
    redis.call('ZREM', missing, unpack(taken_ids))
  end
end
for i = 1, #unready, 500 do redis.call('ZREM', ready, unpack(unready, i, math.min(i + 499, #unready))) end
for _, id in ipairs(unscheduled) do redis.call('ZREM', scheduled, id) end
for _, source in ipairs(sources) do
  if source.reason then
    for _, job in ipairs(taken) do
      if job.reason == source.reason then redis.pcall('ZREM', source.key, job.id) end
    end
    for _, id in ipairs(source.drop) do redis.pcall('ZREM', source.key, id) end
    if redis.call('EXISTS', source.key) == 0 then redis.call('SREM', held, source.reason) end
  end
end
if entered > 0 then redis.pcall('HINCRBY', counters, 'entered', entered) end
if #reports > 0 then redis.pcall('HINCRBY', counters, 'dropped', #reports / 2) end

-- A read of `ready` after the last write arms CLIENT TRACKING for the next change; a script's own writes disarm it.
redis.call('ZRANGE', ready, 0, 0)

local jobs = {}
for i, job in ipairs(taken) do jobs[i] = job.out end
return {now_text, more, jobs, reports, unhandled, foreign_keys}
