WITH booked AS (
    UPDATE genesis_load.ledger SET committed = committed + 1 WHERE seat = $3 RETURNING seat
)
INSERT INTO genesis_load.operations (account_id, kind, amount)
SELECT $1::bigint, 'write', $2::bigint FROM booked
