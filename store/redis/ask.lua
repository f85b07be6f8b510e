-- ask tells the server's epoch. It is run as one that writes, so that a replica refuses it.
-- KEYS: any of the shard
-- Answers epoch, epoch before.
local epoch, before = epochs(redis.call('INFO', 'replication'))
return epoch .. before
