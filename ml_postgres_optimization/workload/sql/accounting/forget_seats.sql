DELETE FROM genesis_load.ledger WHERE run = %(run)s
