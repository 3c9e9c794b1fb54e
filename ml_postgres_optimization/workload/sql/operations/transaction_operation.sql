INSERT INTO genesis_load.operations (account_id, kind, amount)
VALUES ($1, 'transaction', $2)
