-- gene in ASCII, and the run: one runner at a time, for as long as its session lives.
SELECT pg_try_advisory_lock(1734700645, hashtext(%(run)s))
