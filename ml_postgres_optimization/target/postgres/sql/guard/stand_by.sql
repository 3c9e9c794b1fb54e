-- Wait beside the session in which settings are changed. When it ends, is silent for longer than its lease, or takes
-- longer than it said, end it and put back what was on trial: only what is still as the trial wrote it. ALTER SYSTEM
-- runs in no function, hence the connection to ourselves. Each COMMIT gives the snapshot back, so that vacuum is never
-- held up.
DO $guard$
DECLARE
    duty json := current_setting('genesis_pg.duty')::json;
    tuner int4 := duty ->> 'pid';
    began timestamptz := duty ->> 'started_at';
    lease interval := make_interval(secs => (duty ->> 'lease_seconds')::float8);
    until timestamptz := clock_timestamp() + make_interval(secs => (duty ->> 'longest_seconds')::float8);
    heard timestamptz;
    knob json;
BEGIN
    LOOP
        SELECT greatest(state_change, query_start) INTO heard
        FROM pg_stat_get_activity(tuner)
        WHERE backend_start = began;
        EXIT WHEN NOT FOUND OR clock_timestamp() > least(heard + lease, until);
        COMMIT;
        PERFORM pg_sleep(0.4);
    END LOOP;
    RAISE LOG 'genesis-pg: process % is gone or silent; what it had on trial is put back', tuner;
    WHILE EXISTS (SELECT FROM pg_stat_get_activity(tuner) WHERE backend_start = began) LOOP
        PERFORM pg_terminate_backend(tuner);
        COMMIT;
        PERFORM pg_sleep(0.02);
    END LOOP;
    -- whoever has the lock puts everything back
    IF NOT pg_try_advisory_lock({class}, {object}) THEN
        RETURN;
    END IF;
    IF NOT EXISTS (
        SELECT
        FROM pg_locks
        WHERE locktype = 'advisory'
            AND classid = {class}
            AND objid = {object}
            AND objsubid = 2
            AND granted
            AND pid <> pg_backend_pid()
    ) THEN
        FOR knob IN SELECT value FROM json_array_elements(duty -> 'knobs') LOOP
            CONTINUE WHEN knob ->> 'new_written' IS DISTINCT FROM (
                SELECT setting
                FROM pg_file_settings
                WHERE sourcefile LIKE '%/postgresql.auto.conf' AND lower(name) = knob ->> 'name'
                ORDER BY seqno DESC
                LIMIT 1
            );
            FOR attempt IN 1..3 LOOP
                BEGIN
                    PERFORM {schema}.dblink_exec('genesis_pg', knob ->> 'put_back');
                    RAISE LOG 'genesis-pg: %', knob ->> 'put_back';
                    EXIT;
                EXCEPTION WHEN OTHERS THEN
                    RAISE LOG 'genesis-pg: % failed: %', knob ->> 'put_back', SQLERRM;
                END;
                BEGIN
                    PERFORM {schema}.dblink_disconnect('genesis_pg');
                EXCEPTION WHEN OTHERS THEN
                    NULL;
                END;
                BEGIN
                    PERFORM {connect}('genesis_pg', duty ->> 'own');
                EXCEPTION WHEN OTHERS THEN
                    RAISE LOG 'genesis-pg: no connection to ourselves: %', SQLERRM;
                END;
            END LOOP;
        END LOOP;
        PERFORM pg_reload_conf();
    END IF;
    PERFORM pg_advisory_unlock({class}, {object});
END
$guard$
