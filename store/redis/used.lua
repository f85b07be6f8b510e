-- used tells the slots of a subject, leaving out the dead, and changes nothing.
-- KEYS: reservations, held
-- ARGV: dead incarnations...
local function count(v) return tonumber(string.match(v, '^%d+')) end

local dead = {}
for _, incarnation in ipairs(ARGV) do dead[incarnation] = true end

local used = redis.call('ZCOUNT', KEYS[1], text(milliseconds()), '+inf')
local fields = redis.call('HGETALL', KEYS[2])
for i = 1, #fields, 2 do
  if not dead[fields[i]] then used = used + count(fields[i + 1]) end
end
return used
