-- issue puts a ticket and reserves a slot, or does neither.
-- KEYS: ticket, reservations, held
-- ARGV: epoch, ticket hash, ticket value, limit (-1: none), outstanding, life in ms, dead incarnations...
-- Answers {result, slots used after it}: 1 ok, 2 full, 3 outstanding, 4 other epoch, 5 duplicate (ticket.IssueResult).
if epoch() ~= ARGV[1] then return { 4, 0 } end

local now = milliseconds()
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', '(' .. text(now)) -- '(': a ticket lives through its last millisecond
for i = 7, #ARGV, 1000 do -- unpack takes some 8000 values at most
  redis.call('HDEL', KEYS[3], unpack(ARGV, i, math.min(i + 999, #ARGV)))
end

local reserved = redis.call('ZCARD', KEYS[2])
local used = reserved
for _, v in ipairs(redis.call('HVALS', KEYS[3])) do used = used + count(v) end

local limit = tonumber(ARGV[4])
if redis.call('EXISTS', KEYS[1]) == 1 then return { 5, used } end
if limit >= 0 and used >= limit then return { 2, used } end
if reserved >= tonumber(ARGV[5]) then return { 3, used } end

local expiry = now + tonumber(ARGV[6])
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[6])
redis.call('ZADD', KEYS[2], text(expiry), ARGV[2])
if reserved == 0 then
  redis.call('PEXPIREAT', KEYS[2], text(expiry))
else
  redis.call('PEXPIREAT', KEYS[2], text(expiry), 'GT')
end
return { 1, used + 1 }
