SELECT /* genesis-pg */ pg_advisory_unlock(%(class)s, %(object)s)
