-- 100 rows, over accounts that lie a stride apart.
INSERT INTO genesis_load.operations (account_id, kind, amount)
SELECT 1 + ($1::bigint + number * $2::bigint) % $3::bigint, 'bulk_insert', $4::bigint
FROM generate_series(0, 99) AS number
