-- Held until it is released, or until the session ends.
SELECT /* genesis-pg */ pg_try_advisory_lock(%(class)s, %(object)s)
