SELECT server, known_since, observed_at FROM genesis.observed_servers WHERE server = %(server)s
