INSERT INTO genesis_tpcb.pgbench_accounts (aid, bid, abalance, filler)
SELECT number, (number - 1) / 100000 + 1, 0, ''
FROM generate_series(1, 100000 * %(branches)s::integer) AS number
