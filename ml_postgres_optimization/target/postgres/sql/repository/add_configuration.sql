INSERT INTO genesis.configurations (id, values, origin)
VALUES (%(id)s, %(values)s, %(origin)s)
ON CONFLICT (id) DO NOTHING
