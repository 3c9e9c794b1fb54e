INSERT INTO genesis_tpcb.pgbench_branches (bid, bbalance)
SELECT number, 0
FROM generate_series(1, %(branches)s::integer) AS number
