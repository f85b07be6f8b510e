-- renew enters or prolongs the lease of an incarnation and answers the view.
-- KEYS: leases (zset, score = end), dead (zset, score = since when), names (hash)
-- ARGV: incarnation, name, lease in ms, former incarnations...
-- Answers {epoch, server time in ms, alive, dead}, or {} if the incarnation had ended.
local now = milliseconds()

local function bury(incarnation)
  redis.call('ZREM', KEYS[1], incarnation)
  redis.call('HDEL', KEYS[3], incarnation)
  redis.call('ZADD', KEYS[2], 'NX', text(now), incarnation)
end

for _, ended in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text(now))) do bury(ended) end
for i = 4, #ARGV do bury(ARGV[i]) end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', text(now - 3600000))

if redis.call('ZSCORE', KEYS[2], ARGV[1]) then return {} end
redis.call('ZADD', KEYS[1], text(now + tonumber(ARGV[3])), ARGV[1])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
return { epoch(), text(now), redis.call('ZRANGE', KEYS[1], 0, -1), redis.call('ZRANGE', KEYS[2], 0, -1) }
