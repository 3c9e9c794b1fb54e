WITH booked AS (
    UPDATE genesis_load.ledger SET committed = committed + 1 WHERE seat = $5 RETURNING seat
)
INSERT INTO genesis_load.operations (account_id, kind, amount)
SELECT 1 + ($1::bigint + number * $2::bigint) % $3::bigint, 'bulk_insert', $4::bigint
FROM booked, generate_series(0, 99) AS number
