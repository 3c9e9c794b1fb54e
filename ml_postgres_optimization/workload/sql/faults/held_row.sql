-- A row that a session of the load has written, which now waits for our partner: the row's old version carries its
-- transaction, here with its epoch. Only one that has begun to wait a moment ago: its own look for deadlocks must still
-- lie ahead (deadlock_timeout), so that it, and not the partner, is the one that is rolled back. Of all numbers that end
-- alike, a transaction's is the one less than 2^31 away from those of now.
SELECT
    accounts.account_id,
    (ahead.xid - ((ahead.xid - accounts.xmax::text::bigint) & 4294967295))::text AS xid
FROM genesis_load.accounts
CROSS JOIN (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 2147483648 AS xid) AS ahead
WHERE accounts.account_id = ANY (%(accounts)s::bigint[])
    AND accounts.xmax = ANY (ARRAY(
        SELECT backend_xid
        FROM pg_stat_activity
        WHERE application_name = %(name)s
            AND datname = current_database()
            AND backend_xid IS NOT NULL
            AND wait_event_type = 'Lock'
            AND %(holder)s::integer = ANY (pg_blocking_pids(pid))
            AND clock_timestamp() - query_start < current_setting('deadlock_timeout')::interval * 0.7
    ))
LIMIT 1
