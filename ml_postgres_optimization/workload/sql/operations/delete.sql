-- The oldest rows of one account, at most 8: in every mix of ours, each delete must take up to 7 rows to keep pace
-- with what the other kinds insert.
DELETE FROM genesis_load.operations
WHERE operation_id = ANY (ARRAY(
    SELECT operation_id
    FROM genesis_load.operations
    WHERE account_id = $1
    ORDER BY operation_id
    LIMIT 8
))
