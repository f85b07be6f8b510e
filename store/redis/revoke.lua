-- revoke takes an unused ticket of this owner back.
-- KEYS: ticket, reservations
-- ARGV: ticket hash, owner hash
-- Answers 1, or 0: no such unused ticket of this owner.
local value = redis.call('GET', KEYS[1])
if not value or string.sub(value, 33, 48) ~= ARGV[2] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
