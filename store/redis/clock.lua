-- milliseconds is the server's time, the only one that counts.
local function milliseconds()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- text writes a time without exponent and fraction, which tostring would not.
local function text(n) return string.format('%.0f', n) end
