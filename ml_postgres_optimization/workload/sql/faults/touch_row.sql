-- A new version of the row with nothing changed: whoever has seen the old one and wants to write it cannot.
UPDATE genesis_load.accounts
SET balance = balance
WHERE account_id = %(account_id)s
