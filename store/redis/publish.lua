-- publish sends messages to who listens to their channels. It is run as one that writes, so that a replica refuses it.
-- KEYS: any of the shard that keeps the list of nodes
-- ARGV: channel and message, as often as there are any
for i = 1, #ARGV, 2 do redis.call('PUBLISH', ARGV[i], ARGV[i + 1]) end
return 0
