INSERT INTO genesis_tpcb.pgbench_tellers (tid, bid, tbalance)
SELECT number, (number - 1) / 10 + 1, 0
FROM generate_series(1, 10 * %(branches)s::integer) AS number
