-- Older than anything the load writes, spread evenly over the accounts and over 30 days.
INSERT INTO genesis_load.operations (account_id, kind, amount, at)
SELECT
    1 + abs(hashint8(number)::bigint) %% %(accounts)s::bigint,
    'initial',
    1 + abs(hashint8(-number)::bigint) %% 1000,
    timestamptz '2020-01-01 00:00:00+00' + interval '30 days' * (number / %(operations)s::double precision)
FROM generate_series(1, %(operations)s::bigint) AS number
