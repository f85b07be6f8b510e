-- look tells what there is of a ticket, and changes nothing.
-- KEYS: ticket, note
-- Answers {ticket value or '', owner hash of the note or ''}.
return { redis.call('GET', KEYS[1]) or '', redis.call('GET', KEYS[2]) or '' }
