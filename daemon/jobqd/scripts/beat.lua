-- beat: renew the leases of one daemon and vouch for it.
--
-- KEYS  1 ready  2 active (3 to 8 as in claim)  9 daemons  10 the daemon's own hash
-- ARGV  1 job key prefix  2 worker  3 lease (s)  4 seconds this beat vouches for  5 how many of the following describe the
--       daemon (field, value, ...), then pairs: id, fence
-- RETURNS  {now, {id, fence, reason, ...}}: the runs that are no longer this daemon's; reason: cancelled | lost

local active, daemons, daemon = KEYS[2], KEYS[9], KEYS[10]
local job_prefix, worker, lease, vouched = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local described = tonumber(ARGV[5])

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
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local until_text = string.format('%.6f', now + lease)

local renewed, lost = {}, {}
for i = 6 + described, #ARGV, 2 do
  local id, fence = ARGV[i], integer(ARGV[i + 1])
  local h = redis.pcall('HMGET', job_prefix .. id, 'worker', 'fence', 'status')
  if not foreign(h) and h[1] == worker and integer(h[2]) == fence and redis.call('ZSCORE', active, id) then
    renewed[#renewed + 1] = until_text
    renewed[#renewed + 1] = id
  else
    lost[#lost + 1] = id
    lost[#lost + 1] = fence
    lost[#lost + 1] = (not h.err and h[3] == 'cancelled') and 'cancelled' or 'lost'
  end
end
for i = 1, #renewed, 1000 do
  redis.call('ZADD', active, 'XX', unpack(renewed, i, math.min(i + 999, #renewed)))
end
-- Presence is for people; a foreign key in its place must not cost a lease.
if described > 0 then
  redis.pcall('HSET', daemon, unpack(ARGV, 6, 5 + described))
  redis.pcall('EXPIRE', daemon, math.ceil(vouched))
  redis.pcall('ZADD', daemons, string.format('%.6f', now + vouched), worker)
  redis.pcall('ZREMRANGEBYSCORE', daemons, '-inf', string.format('%.6f', now))
end
return {string.format('%.6f', now), lost}
