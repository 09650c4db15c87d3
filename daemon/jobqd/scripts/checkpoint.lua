-- checkpoint: save what a running job wants its next run to know.
--
-- KEYS  1 ready  2 active (the rest as in claim)
-- ARGV  1 job key prefix  2 id  3 worker  4 fence  5 the checkpoint, a JSON text  6 its number among those of this worker
-- RETURNS  1 if saved, or if a later one of this run was saved before; 0 if the run no longer owns its job

local active = KEYS[2]
local key, id, worker, fence = ARGV[1] .. ARGV[2], ARGV[2], ARGV[3], ARGV[4]
local number = tonumber(ARGV[6])

-- A key of another type in a hash's place means that there is no job; any other error stops the script before it writes.
local function foreign(reply)
  if not reply.err then return false end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return true end
  error(reply.err)
end

redis.call('ZREM', active, '')
local h = redis.pcall('HMGET', key, 'worker', 'fence', '_saved')
if foreign(h) or h[1] ~= worker or h[2] ~= fence or not redis.call('ZSCORE', active, id) then return 0 end
-- A request whose reply was lost may arrive after the next one.
local by, last = string.match(h[3] or '', '^(%d+):(%d+)$')
if by == fence and #last <= 15 and tonumber(last) > number then return 1 end
redis.call('HSET', key, 'checkpoint', ARGV[5], '_saved', fence .. ':' .. ARGV[6])
return 1
