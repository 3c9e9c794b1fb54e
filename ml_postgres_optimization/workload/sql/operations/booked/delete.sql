WITH booked AS (
    UPDATE genesis_load.ledger SET committed = committed + 1 WHERE seat = $2 RETURNING seat
)
DELETE FROM genesis_load.operations
USING booked
WHERE operation_id = ANY (ARRAY(
    SELECT operation_id
    FROM genesis_load.operations
    WHERE account_id = $1
    ORDER BY operation_id
    LIMIT 8
))
