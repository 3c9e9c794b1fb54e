INSERT INTO genesis_load.event_log (account_id, other_account_id, amount, at, payload)
SELECT
    1 + abs(hashint8(number)::bigint) %% %(accounts)s::bigint,
    1 + abs(hashint8(-number)::bigint) %% %(accounts)s::bigint,
    1 + number %% 1000,
    timestamptz '2020-01-01 00:00:00+00' + interval '30 days' * (number / %(events)s::double precision),
    'initial'
FROM generate_series(1, %(events)s::bigint) AS number
