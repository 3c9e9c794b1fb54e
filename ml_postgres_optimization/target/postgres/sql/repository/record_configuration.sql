SELECT genesis.record_configuration(%(server)s, %(seen)s, %(seen_at)s, %(loaded_at)s) AS changed
