-- assert writes the held count of one incarnation for one subject, and forgets the tickets that it counts as sockets.
-- KEYS: held, reservations, tickets...
-- ARGV: epoch, incarnation, held count, number of the reading, ticket hashes...
-- Answers 1 (written, or a later one stands there) or 4 (other epoch), epoch, epoch before.
local epoch, before = epochs(redis.call('INFO', 'replication'))
if epoch ~= ARGV[1] then return '4' .. epoch .. before end

for i = 3, #KEYS, 1000 do -- unpack takes some 8000 values at most
  local last = math.min(i + 999, #KEYS)
  redis.call('DEL', unpack(KEYS, i, last))
  redis.call('ZREM', KEYS[2], unpack(ARGV, i + 2, last + 2))
end
hold(KEYS[1], ARGV[2], ARGV[3], ARGV[4])
return '1' .. epoch .. before
