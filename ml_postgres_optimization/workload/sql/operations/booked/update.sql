WITH booked AS (
    UPDATE genesis_load.ledger SET committed = committed + 1 WHERE seat = $2 RETURNING seat
)
UPDATE genesis_load.accounts
SET updates_total = updates_total + 1
FROM booked
WHERE account_id = $1
