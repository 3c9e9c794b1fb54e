-- For this transaction: plans that do not depend on parameters, and no waiting for a lock. Names as the load's own
-- sessions find them.
-- https://www.postgresql.org/docs/current/runtime-config-query.html#GUC-PLAN-CACHE-MODE
SELECT
    set_config('plan_cache_mode', 'force_generic_plan', true),
    set_config('search_path', 'pg_catalog, pg_temp', true),
    set_config('lock_timeout', '50ms', true),
    set_config('statement_timeout', '2s', true)
