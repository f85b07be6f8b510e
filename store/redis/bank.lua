-- bank does the business of buckets that nodes share: limiter.Ask, in its order, for each of them.
-- KEYS: buckets, all of one tag
-- ARGV for each: kind (b: token bucket, f: fixed window), N of the rate, its period in us, burst (b) or where windows are
--   counted from in us (f), spent, given back, window of both in s (f), wanted
-- Answers for each: given, remaining, us until one more is there, window in s, us until it ends (0, 0 of a token bucket).
-- A bucket stands as "b:<tokens>:<us>", a window as "f:<start in us>:<used>"; one that is full does not stand at all.
-- Numbers are doubles: 53 bits, so a bucket of 16 TiB is right to a byte. A clock that steps gives at most a burst.
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]

local function bucket(key, n, per, burst, spent, back, want)
  local tokens, at = burst, now
  local kind, a, b = string.match(redis.call('GET', key) or '', '^(%a):([^:]+):([^:]+)$')
  if kind == 'b' then tokens, at = tonumber(a), tonumber(b) end
  local rate = n / per
  tokens = math.min(burst, tokens + math.max(now - at, 0) * rate)
  tokens = math.min(burst, math.max(tokens - spent, 0) + back)
  local given = math.min(want, math.floor(tokens))
  tokens = tokens - given
  local left, wait = math.floor(tokens), 0
  if left == 0 then wait = math.ceil((1 - tokens) / rate) end
  local full = math.ceil((burst - tokens) / rate / 1000) -- in ms
  if full > 0 then
    redis.call('SET', key, string.format('b:%.17g:%.0f', tokens, now), 'PX', text(full))
  else
    redis.call('DEL', key)
  end
  return given, left, wait, 0, 0
end

local function window(key, n, per, offset, spent, back, of, want)
  local start, used = math.floor((now - offset) / per) * per + offset, 0
  local kind, a, b = string.match(redis.call('GET', key) or '', '^(%a):([^:]+):([^:]+)$')
  if kind == 'f' then
    a = tonumber(a)
    if a > start and (a - start) % per == 0 then start = a end -- the clock has stepped back: the window goes on
    if a == start then used = tonumber(b) end
  end
  if of * 1000000 == start then used = math.max(used + spent - back, 0) end
  local left = math.max(n - used, 0)
  local given = math.min(want, left)
  used, left = used + given, left - given
  local ends = start + per - now
  -- An hour longer than it lasts: a clock that steps back by less gives nothing twice.
  redis.call('SET', key, string.format('f:%.0f:%.0f', start, used), 'PX', text(math.ceil(ends / 1000) + 3600000))
  return given, left, left == 0 and ends or 0, start / 1000000, ends
end

local answers = {}
for i, key in ipairs(KEYS) do
  local p = (i - 1) * 8
  local function arg(j) return tonumber(ARGV[p + j]) end
  local given, left, wait, start, ends
  if ARGV[p + 1] == 'f' then
    given, left, wait, start, ends = window(key, arg(2), arg(3), arg(4), arg(5), arg(6), arg(7), arg(8))
  else
    given, left, wait, start, ends = bucket(key, arg(2), arg(3), arg(4), arg(5), arg(6), arg(8))
  end
  for _, v in ipairs({ given, left, wait, start, ends }) do answers[#answers + 1] = v end
end
return answers
