-- Two that create the tables at once: the second waits, and finds them there.
SELECT pg_advisory_xact_lock(hashtextextended(%(schema)s, 0))
