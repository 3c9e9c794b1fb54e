SELECT account_id, balance, updates_total, filler
FROM genesis_load.accounts
WHERE account_id = $1
