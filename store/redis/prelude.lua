-- What every script starts with. Redis runs a script as one step: nothing else happens in between.

-- epoch is the server's history: 32 bits of master_replid, which is new after each promotion and each restart.
local function epoch()
  local id = string.sub(string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)'), 1, 8)
  if id == '00000000' then return '00000001' end -- zero means "not known" to the gateways
  return id
end

-- milliseconds is the server's time, the only one that counts.
local function milliseconds()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- text writes a time without exponent and fraction, which tostring would not.
local function text(n) return string.format('%.0f', n) end

-- hold writes the held count of one incarnation unless a reading with the same or a higher number stands there. A zero
-- keeps its field and number; when all fields are zero the key gets an hour, longer than any command can be on its way.
-- number has 20 digits, so that texts compare as numbers do (Lua's own have 53 bits).
local function hold(key, incarnation, count, number)
  local stored = redis.call('HGET', key, incarnation)
  if stored and string.sub(stored, -20) >= number then return end
  redis.call('HSET', key, incarnation, count .. ':' .. number)
  redis.call('PERSIST', key)
  if count ~= '0' then return end
  for _, v in ipairs(redis.call('HVALS', key)) do
    if string.sub(v, 1, 2) ~= '0:' then return end
  end
  redis.call('PEXPIRE', key, 3600000)
end

-- count is the number of sockets in a held field.
local function count(v) return tonumber(string.match(v, '^%d+')) end
