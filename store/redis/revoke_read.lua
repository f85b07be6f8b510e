-- revoke_read tells what stands behind a place of the log.
-- KEYS: all (hash, id: text), order (zset, score = place), state (hash)
-- ARGV: history of the place, place, how many at most
-- Answers {history, place behind the last, 1 if there are more, texts...}. The history is the log's own name and the server's epoch: a
-- promoted replica may lack the latest, and gives their places to others.
local epoch = epochs(redis.call('INFO', 'replication'))
local history = (redis.call('HGET', KEYS[3], 'history') or '') .. ':' .. epoch
local place = ARGV[2]
if history ~= ARGV[1] then place = '0' end

local found = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. place, '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[3])
local answer = { history, place, #found / 2 == tonumber(ARGV[3]) and 1 or 0 }
for i = 1, #found, 2 do
  answer[2] = found[i + 1]
  answer[#answer + 1] = redis.call('HGET', KEYS[1], found[i]) or ''
end
return answer
