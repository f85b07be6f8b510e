-- revoke_plans keeps which plan each key has, and tells which had another one.
-- KEYS: plans (hash, id: plan)
-- ARGV: id, plan, ...
-- Answers id, former plan, ...
local changed = {}
for i = 1, #ARGV, 2 do
  local former = redis.call('HGET', KEYS[1], ARGV[i])
  if former ~= ARGV[i + 1] then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    if former then
      changed[#changed + 1] = ARGV[i]
      changed[#changed + 1] = former
    end
  end
end
return changed
