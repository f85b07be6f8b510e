-- history is 32 bits of a replication id. Zero means "not known" to the gateways, so it is none of them.
local function history(id)
  local h = string.sub(id, 1, 8)
  if h ~= '00000000' then return h end
  if id == '0000000000000000000000000000000000000000' then return h end
  return '00000001'
end

-- epochs returns the server's history, master_replid, which is new after each promotion and each restart; and the one that
-- it has followed by a promotion, master_replid2, 0 for none. info is INFO replication, where they follow each other:
-- "master_replid:<40 digits>\r\nmaster_replid2:<40 digits>".
local function epochs(info)
  local at = string.find(info, 'master_replid:', 1, true) + 14
  return history(string.sub(info, at, at + 39)), history(string.sub(info, at + 57, at + 96))
end
