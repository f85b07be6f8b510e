-- issue puts a ticket and reserves a slot, or does neither.
-- KEYS: ticket, reservations, held
-- ARGV: epoch, ticket hash, ticket value, limit (-1: none), outstanding, life in ms, reservation in ms, dead incarnations...
-- Answers {epoch, epoch before, result, slots used after it}: 1 ok, 2 full, 3 outstanding, 4 other epoch, 5 duplicate
-- (ticket.IssueResult). With 2 come those of the slots that are reserved, and the incarnations that hold slots, the first 1000.
local function count(v) return tonumber(string.match(v, '^%d+')) end

local epoch, before = epochs(redis.call('INFO', 'replication'))
if epoch ~= ARGV[1] then return { epoch, before, 4, 0 } end

local now = milliseconds()
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', '(' .. text(now)) -- '(': a ticket lives through its last millisecond
local buried = 0
for i = 8, #ARGV, 1000 do -- unpack takes some 8000 values at most
  buried = buried + redis.call('HDEL', KEYS[3], unpack(ARGV, i, math.min(i + 999, #ARGV)))
end
if buried > 0 then lapse(KEYS[3]) end

local reserved = redis.call('ZCARD', KEYS[2])
local used = reserved
for _, v in ipairs(redis.call('HVALS', KEYS[3])) do used = used + count(v) end

local limit = tonumber(ARGV[4])
if redis.call('EXISTS', KEYS[1]) == 1 then return { epoch, before, 5, used } end
if limit >= 0 and used >= limit then
  local answer, fields = { epoch, before, 2, used, reserved }, redis.call('HGETALL', KEYS[3])
  for i = 1, #fields, 2 do
    if count(fields[i + 1]) > 0 and #answer < 1005 then answer[#answer + 1] = fields[i] end
  end
  return answer
end
if reserved >= tonumber(ARGV[5]) then return { epoch, before, 3, used } end

local expiry = text(now + tonumber(ARGV[7]))
if redis.call('ZADD', KEYS[2], 'NX', expiry, ARGV[2]) == 0 then return { epoch, before, 5, used } end -- outlived its ticket
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[6])
if reserved == 0 then
  redis.call('PEXPIREAT', KEYS[2], expiry)
else
  redis.call('PEXPIREAT', KEYS[2], expiry, 'GT')
end
return { epoch, before, 1, used + 1 }
