-- For this transaction: wait for no lock, and for no long answer. Who only looks holds up nobody, himself included.
-- https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-LOCK-TIMEOUT
SELECT /* genesis-pg */
    set_config('lock_timeout', '50ms', true) AS lock_timeout,
    set_config('statement_timeout', '2s', true) AS statement_timeout
