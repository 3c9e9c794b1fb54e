INSERT INTO genesis.journal (at, server, entry) VALUES (%(at)s, %(server)s, %(entry)s)
