WITH booked AS (
    UPDATE genesis_load.ledger SET committed = committed + 1 WHERE seat = $4 RETURNING seat
)
INSERT INTO genesis_load.event_log (account_id, other_account_id, amount, payload)
SELECT $1::bigint, $2::bigint, $3::bigint, 'moved between two accounts in one transaction' FROM booked
RETURNING event_id
