-- lapsed: list leases that ran out, or are longer than any daemon's, or those of one dead worker, for the caller to decide;
-- clear away leftovers.
--
-- KEYS  1 ready  2 active  8 counters (the rest as in claim)
-- ARGV  1 job key prefix  2 '' (by time) or the dead worker's id  3 ZSCAN cursor (by worker only)  4 how many ids to look at
-- RETURNS  {now, next cursor, {{id, worker, fence, {field, value, ...}}, ...}}
--
-- Writes only to drop an active id that has no hash or has ended, and what cannot be a worker's id: all can be repeated at will.

local active, counters = KEYS[2], KEYS[8]
local job_prefix, dead_worker, cursor, limit = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local TERMINAL = {completed = true, failed = true, cancelled = true}
local FIELDS = {'worker', 'fence', 'status', 'finished_at', 'type', 'attempts', 'crashes', 'interruptions',
  'max_attempts', 'timeout', '_due_at'}

-- Seconds: no lease is longer. settle.lua has the same.
local LEASE_MAX = 86400
-- What a producer made longer is not sent: a reply that is too large for the link never arrives, however often it is asked for.
local FIELD_BYTES = 4096

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

redis.call('ZREM', active, '')
local time = redis.call('TIME')
local now = string.format('%.6f', tonumber(time[1]) + tonumber(time[2]) / 1000000)

local ids, following = {}, '0'
if dead_worker == '' then
  ids = redis.call('ZRANGEBYSCORE', active, '-inf', '(' .. now, 'LIMIT', 0, limit)
  -- Such a one was written by somebody else, or before the clock of Redis was set back: it would never run out.
  local longest = string.format('(%.6f', tonumber(now) + LEASE_MAX)
  local rest = redis.call('ZRANGEBYSCORE', active, longest, '+inf', 'LIMIT', 0, limit - #ids)
  for _, id in ipairs(rest) do ids[#ids + 1] = id end
else
  -- Not by rank: others renew their leases meanwhile, which moves what was not looked at yet among what was.
  local page = redis.call('ZSCAN', active, cursor, 'COUNT', limit)
  following = page[1]
  for i = 1, #page[2], 2 do ids[#ids + 1] = page[2][i] end
end

local rows, leftovers = {}, {}
for _, id in ipairs(ids) do
  local h = redis.pcall('HMGET', job_prefix .. id, unpack(FIELDS))
  local lost = foreign(h) or (not h[3] and not h[5] and redis.call('EXISTS', job_prefix .. id) == 0)
  if lost or (h[4] and TERMINAL[h[3]]) then
    leftovers[#leftovers + 1] = id
    if lost then redis.pcall('HINCRBY', counters, 'vanished', 1) end
  else
    if dead_worker == '' or h[1] == dead_worker then
      local flat = {}
      if h[1] and #h[1] > FIELD_BYTES then
        redis.call('HDEL', job_prefix .. id, 'worker')
        h[1] = nil
      end
      for i, name in ipairs(FIELDS) do
        if h[i] and #h[i] <= FIELD_BYTES then
          flat[#flat + 1] = name
          flat[#flat + 1] = h[i]
        end
      end
      rows[#rows + 1] = {id, h[1] or '', integer(h[2]), flat}
    end
  end
end
for i = 1, #leftovers, 500 do redis.call('ZREM', active, unpack(leftovers, i, math.min(i + 499, #leftovers))) end
return {now, following, rows}
