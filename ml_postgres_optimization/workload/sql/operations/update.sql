UPDATE genesis_load.accounts
SET updates_total = updates_total + 1
WHERE account_id = $1
