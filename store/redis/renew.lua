-- renew enters or prolongs the lease of an incarnation, registers its epochs and answers the view. store/model says in Go what
-- it does, by the same names and in the same order.
-- KEYS: entries (hash by incarnation), state (hash)
-- ARGV: incarnation, name, lease in ms, number, number acknowledged, 1 to enter, topology, registered, replicas, former
--   incarnations...
-- Answers {"ok", epoch, epoch before, server time in ms, flags, {shards of another epoch...}, {incarnation, entry, ...}}, or
-- {"lost"}, {"stale"}, {"crowded"}. Flags are letters: g grace, y young, a again.
--
-- Numbers have 20 decimal digits, epochs 8 hexadecimal ones, incarnations and topologies 16. Registered is a list without
-- separators of shard (4 hexadecimal digits) and epoch. An entry:
--
--   0     1        17       37           45         61                 65
--   state end, ms  number   generation   topology   count of registered registered... name
--   a d   16 dec.  20 dec.  8 dec.       16 hex.    4 hex.
--
-- The state is history, born, since, lost and generation, which counts the graces: an entry of an older one has not renewed
-- in this history. For each shard there is a field "s" and its 4 digits: its current epoch, then up to 64 former ones.
local LIST, STATE = KEYS[1], KEYS[2]
local ME, NAME, LEASE, NUMBER, ACKED, ENTER, TOPOLOGY, REGISTERED, REPLICAS = unpack(ARGV, 1, 9)
local GRACE_MORE, DEAD_KEPT, FORMER_MAX, LIST_MAX = 5000, 3600000, 64, 4096
local NOBODY = string.rep('0', 20)

local function ending(e) return tonumber(string.sub(e, 2, 17)) end
local function numbered(e) return string.sub(e, 18, 37) end
local function dead(e) return string.sub(e, 1, 1) == 'd' end
local function registered(e) return string.sub(e, 66, 65 + 12 * tonumber(string.sub(e, 62, 65), 16)) end
local function named(e) return string.sub(e, 66 + 12 * tonumber(string.sub(e, 62, 65), 16)) end

-- on is the epoch by which a list of registered has a shard; nil or zeros: by none.
local function on(list, shard)
  for i = 1, #list, 12 do
    if string.sub(list, i, i + 3) == shard then return string.sub(list, i + 4, i + 11) end
  end
end

local mine = redis.call('HGET', LIST, ME)
if mine and NUMBER <= numbered(mine) then return { 'stale' } end

local now, info = milliseconds(), redis.call('INFO', 'replication')
local epoch, before = epochs(info)
local span = tonumber(LEASE) + GRACE_MORE
local state = redis.call('HMGET', STATE, 'history', 'born', 'since', 'lost', 'generation')
local born, since, lost, generation = tonumber(state[2]), tonumber(state[3]), state[4] == '1', tonumber(state[5] or 0)

local function in_grace() return since and now < since + span end
local function begin(missing)
  since, lost, generation = now, missing, generation + 1
  redis.call('HSET', STATE, 'since', text(since), 'lost', lost and '1' or '0', 'generation', generation)
end

if not state[1] then
  born = now
  redis.call('HSET', STATE, 'born', text(born), 'history', epoch)
elseif state[1] ~= epoch then
  begin(in_grace())
  redis.call('HSET', STATE, 'history', epoch)
end

local grace, young, again = in_grace(), now < born + span, false

local list, size = {}, 0
local function entry(alive, ends, number, topology, shards, name)
  return (alive and 'a' or 'd') .. string.format('%016.0f', ends) .. number .. string.format('%08d', generation) .. topology
    .. string.format('%04x', #shards / 12) .. shards .. name
end
local function put(incarnation, e)
  if not list[incarnation] then size = size + 1 end
  list[incarnation] = e
  redis.call('HSET', LIST, incarnation, e)
end
local function mark(incarnation)
  local e = list[incarnation]
  if not e then return put(incarnation, entry(false, now, NOBODY, string.rep('0', 16), '', '')) end
  if not dead(e) then put(incarnation, entry(false, now, numbered(e), string.sub(e, 46, 61), '', named(e))) end
end

local all = redis.call('HGETALL', LIST)
for i = 1, #all, 2 do list[all[i]], size = all[i + 1], size + 1 end
if not grace then
  for i = 1, #all, 2 do -- not over list, which changes
    local incarnation, e = all[i], all[i + 1]
    local ends = ending(e)
    if not dead(e) then
      if now >= ends then mark(incarnation) end
    elseif now >= ends + DEAD_KEPT then
      redis.call('HDEL', LIST, incarnation)
      list[incarnation], size = nil, size - 1
    end
  end
end

mine = list[ME]
if mine and dead(mine) then return { 'lost' } end
if not mine and ENTER == '0' then
  if not grace and not (young and ACKED > NOBODY) then return { 'lost' } end
  again = true
end
local made = mine and 0 or 1
for i = 10, #ARGV do
  if not list[ARGV[i]] then made = made + 1 end
end
if size + made > LIST_MAX then return { 'crowded' } end

local function answer(old, nodes)
  return { 'ok', epoch, before, text(now), (grace and 'g' or '') .. (young and 'y' or '') .. (again and 'a' or ''), old, nodes }
end

-- alone: no other living incarnation is registered under another epoch of the shard.
local function alone(shard, under)
  for incarnation, e in pairs(list) do
    local other = incarnation ~= ME and not dead(e) and on(registered(e), shard)
    if other and other ~= '00000000' and other ~= under then return false end
  end
  return true
end

local old, histories = {}, {}
for i = 1, #REGISTERED, 12 do
  local shard, under = string.sub(REGISTERED, i, i + 3), string.sub(REGISTERED, i + 4, i + 11)
  if under ~= '00000000' then
    local known = redis.call('HGET', STATE, 's' .. shard)
    local current = known and string.sub(known, 1, 8)
    if current ~= under then
      histories[#histories + 1] = { shard, under, known or '' }
      if known and not alone(shard, under) then
        local left = false
        for j = 9, #known, 8 do left = left or string.sub(known, j, j + 7) == under end
        if left or not mine or on(registered(mine), shard) ~= current then old[#old + 1] = shard end
      end
    end
  end
end
if #old > 0 then return answer(old, {}) end

if again or mine and ACKED > numbered(mine) then
  if grace then
    lost = true
    redis.call('HSET', STATE, 'lost', '1')
  else
    begin(true)
    grace = true
  end
end
if again then -- under no epoch, until it has asserted everything once more
  REGISTERED = string.gsub(REGISTERED, '(%x%x%x%x)%x%x%x%x%x%x%x%x', '%100000000')
else
  for _, h in ipairs(histories) do
    local shard, under, known = h[1], h[2], h[3]
    local left = {}
    for j = 9, #known, 8 do left[#left + 1] = string.sub(known, j, j + 7) end
    if known ~= '' then left[#left + 1] = string.sub(known, 1, 8) end
    local kept = {}
    for _, e in ipairs(left) do
      if e ~= under then kept[#kept + 1] = e end
    end
    redis.call('HSET', STATE, 's' .. shard, under .. table.concat(kept, '', math.max(1, #kept - FORMER_MAX + 1)))
  end
end
put(ME, entry(true, now + tonumber(LEASE), NUMBER, TOPOLOGY, REGISTERED, NAME))
for i = 10, #ARGV do mark(ARGV[i]) end -- a node that leaves names itself

-- durable: restarted from the file that has every write, not a former replica, and none that could take over.
local function durable()
  return REPLICAS == '0' and before == '00000000' and string.find(info, 'connected_slaves:0', 1, true)
    and string.find(redis.call('INFO', 'persistence'), 'aof_enabled:1', 1, true)
end
local function complete()
  if lost then return false end
  for _, e in pairs(list) do
    if not dead(e) and tonumber(string.sub(e, 38, 45)) ~= generation then return false end
  end
  return true
end
if grace and complete() and durable() then
  redis.call('HDEL', STATE, 'since')
  grace = false
end

local nodes = {}
for incarnation, e in pairs(list) do
  nodes[#nodes + 1], nodes[#nodes + 2] = incarnation, e
end
return answer(old, nodes)
