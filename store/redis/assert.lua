-- assert writes the held count of one incarnation for one subject.
-- KEYS: held
-- ARGV: incarnation, held count, number of the reading
hold(KEYS[1], ARGV[1], ARGV[2], ARGV[3])
return 1
