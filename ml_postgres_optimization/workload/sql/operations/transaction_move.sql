UPDATE genesis_load.accounts
SET balance = balance + $2
WHERE account_id = $1
