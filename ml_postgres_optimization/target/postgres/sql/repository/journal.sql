SELECT at, server, entry FROM genesis.journal WHERE server = %(server)s ORDER BY number
