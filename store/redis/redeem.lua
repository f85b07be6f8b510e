-- redeem spends a ticket: look-up, deletion, and the reservation becomes a held slot.
-- KEYS: ticket, reservations, held
-- ARGV: epoch, ticket hash, secret hash, incarnation, held count, number of the reading
-- Answers result (1 digit), epoch, epoch before, grant: 1 ok, 2 unknown, 3 wrong secret (it is spent now), 4 other epoch
-- (ticket.RedeemResult).
local epoch, before = epochs(redis.call('INFO', 'replication'))
if epoch ~= ARGV[1] then return '4' .. epoch .. before end

-- A ticket that is not there costs the same commands as one with another secret.
local value = redis.call('GETDEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[2])
if not value then return '2' .. epoch .. before end
if string.sub(value, 1, 32) ~= ARGV[3] then return '3' .. epoch .. before end -- two keyed hashes: where they differ tells nothing

hold(KEYS[3], ARGV[4], ARGV[5], ARGV[6])
return '1' .. epoch .. before .. string.sub(value, 49)
