-- Deterministic: every value is a function of the row's number.
INSERT INTO genesis_load.accounts (account_id, balance, filler)
SELECT number, 1000 + hashint8(number) %% 1000, rpad(md5(number::text), 84, 'x')
FROM generate_series(1, %(accounts)s::bigint) AS number
