-- The oldest rows beyond what is kept, from where the last call ended, so that nothing is looked through twice.
DELETE FROM {table} WHERE {key} > %(low)s AND {key} <= %(high)s
