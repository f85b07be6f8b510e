package redis_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

// shiftLua makes all times under a prefix end earlier, as if the server's clock had gone on.
// ARGV: prefix, ms. Keys with a time to live get a shorter one, scores of reservations and ends of entries are lowered.
const shiftLua = `
local ms = tonumber(ARGV[2])
local function earlier(text) return string.format('%016.0f', tonumber(text) - ms) end
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
  local ttl = redis.call('PTTL', key)
  if ttl >= 0 and ttl <= ms then
    redis.call('DEL', key)
  else
    if ttl > 0 then redis.call('PEXPIRE', key, ttl - ms) end
    local kind = redis.call('TYPE', key).ok
    if kind == 'zset' then
      local all = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
      for i = 1, #all, 2 do redis.call('ZADD', key, string.format('%.0f', tonumber(all[i + 1]) - ms), all[i]) end
    elseif string.find(key, '{nodes}:entries', 1, true) then
      local all = redis.call('HGETALL', key)
      for i = 1, #all, 2 do
        local e = all[i + 1]
        redis.call('HSET', key, all[i], string.sub(e, 1, 1) .. earlier(string.sub(e, 2, 17)) .. string.sub(e, 18))
      end
    elseif string.find(key, '{nodes}:state', 1, true) then
      for _, field in ipairs({ 'born', 'since' }) do
        local at = redis.call('HGET', key, field)
        if at then redis.call('HSET', key, field, earlier(at)) end
      end
    end
  end
end
return 1`

// shift lets d pass for what stands under prefix.
func shift(t testing.TB, c rueidis.Client, prefix string, d time.Duration) {
	t.Helper()
	err := c.Do(context.Background(), c.B().Eval().Script(shiftLua).Numkeys(0).Arg(prefix, strconv.FormatInt(d.Milliseconds(), 10)).Build()).Error()
	if err != nil {
		t.Fatalf("shift: %v", err)
	}
}
