SELECT (SELECT epoch FROM genesis_load.soaks WHERE run = %(run)s), coalesce(sum(committed), 0)::bigint
FROM genesis_load.ledger
WHERE run = %(run)s AND epoch = %(epoch)s
