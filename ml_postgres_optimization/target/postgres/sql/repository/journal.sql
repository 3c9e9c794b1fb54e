SELECT at, entry FROM genesis.journal WHERE server = %(server)s ORDER BY number
