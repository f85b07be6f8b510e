-- lapse gives the held counts an hour, longer than any command can be on its way, if all of them are zero.
local function lapse(key)
  for _, v in ipairs(redis.call('HVALS', key)) do
    if string.sub(v, 1, 2) ~= '0:' then return end
  end
  redis.call('PEXPIRE', key, 3600000)
end

-- hold writes the held count of one incarnation unless a reading with the same or a higher number stands there. A zero
-- keeps its field and number. number has 20 digits, so that texts compare as numbers do (Lua's own have 53 bits).
local function hold(key, incarnation, count, number)
  local stored = redis.call('HGET', key, incarnation)
  if stored and string.sub(stored, -20) >= number then return end
  redis.call('HSET', key, incarnation, count .. ':' .. number)
  redis.call('PERSIST', key)
  if count == '0' then lapse(key) end
end
