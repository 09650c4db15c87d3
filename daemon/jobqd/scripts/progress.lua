-- progress: write the latest progress of running jobs and publish it.
--
-- KEYS  1 ready  2 active (the rest as in claim)
-- ARGV  1 job key prefix  2 progress channel prefix  3 worker, then for each: id, fence, percent, step, eta_seconds, message
--       ('' for a step or an ETA that is not known; message is the JSON to publish)
-- RETURNS  how many were refused because the run no longer owns its job

local active = KEYS[2]
local job_prefix, channel_prefix, worker = ARGV[1], ARGV[2], ARGV[3]

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
local accepted, refused = {}, 0
for i = 4, #ARGV, 6 do
  local id = ARGV[i]
  local h = redis.pcall('HMGET', job_prefix .. id, 'worker', 'fence')
  if not foreign(h) and h[1] == worker and integer(h[2]) == integer(ARGV[i + 1]) and redis.call('ZSCORE', active, id) then
    accepted[#accepted + 1] = i
  else
    refused = refused + 1
  end
end
for _, i in ipairs(accepted) do
  local key = job_prefix .. ARGV[i]
  redis.call('HSET', key, 'progress', ARGV[i + 2], 'step', ARGV[i + 3], 'eta_seconds', ARGV[i + 4])
  redis.pcall('PUBLISH', channel_prefix .. ARGV[i], ARGV[i + 5])
end
return refused
