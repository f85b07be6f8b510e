-- note keeps that a ticket was taken back by its owner, for who asks what became of it.
-- KEYS: note
-- ARGV: owner hash, life in ms
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
