SELECT account_id
FROM genesis_load.accounts
WHERE account_id = %(account_id)s
FOR UPDATE
