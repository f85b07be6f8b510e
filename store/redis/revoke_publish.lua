-- revoke_publish adds revocations to the log, those that it has already excepted, and says so to whoever listens.
-- KEYS: all (hash, id: text), order (zset, score = place), ends (zset, score = when it may be forgotten), state (hash)
-- ARGV: channel, name for the history if it is new, how many may be in force, then for each: id, end in ms, text
-- Answers how many were added, or -1 if there is no room.
local now = milliseconds()
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', text(now), 'LIMIT', 0, 200)) do
  redis.call('HDEL', KEYS[1], id)
  redis.call('ZREM', KEYS[2], id)
  redis.call('ZREM', KEYS[3], id)
end
redis.call('HSETNX', KEYS[4], 'history', ARGV[2])

local added, full = 0, false
for i = 4, #ARGV, 3 do
  if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 0 then
    full = redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[3])
    if full then break end
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2])
    redis.call('ZADD', KEYS[2], redis.call('HINCRBY', KEYS[4], 'last', 1), ARGV[i])
    redis.call('ZADD', KEYS[3], ARGV[i + 1], ARGV[i])
    added = added + 1
  end
end
if added > 0 then redis.pcall('PUBLISH', ARGV[1], '') end -- a user who may not publish still has a log that is read each 100 ms
if full then return -1 end
return added
