INSERT INTO genesis_load.ledger (run, epoch)
SELECT run, epoch FROM genesis_load.soaks WHERE run = $1 AND epoch = $2
RETURNING seat
