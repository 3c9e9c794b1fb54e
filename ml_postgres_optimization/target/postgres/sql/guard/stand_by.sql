-- Wait beside the session in which settings are changed. When it ends, is silent for longer than its lease, or takes
-- longer than it said, end it and put back what was on trial: only what is still as the trial wrote it. ALTER SYSTEM
-- runs in no function, hence the connection to ourselves. Each COMMIT gives the snapshot back, so that vacuum is never
-- held up. A sign of life is that the session goes by another name than at the look before: that needs no statistics
-- of sessions, and no clock that somebody may set.
DO $guard$
DECLARE
    duty json := current_setting('genesis_pg.duty')::json;
    tuner int4 := duty ->> 'pid';
    pause_seconds float8 := 0.4;
    looks_in_silence float8 := (duty ->> 'lease_seconds')::float8 / pause_seconds;
    looks_left float8 := (duty ->> 'longest_seconds')::float8 / pause_seconds;
    silent_looks int4 := 0;
    heard text;
    heard_before text;
    knob json;
    said text;
BEGIN
    RAISE NOTICE 'stands by';
    LOOP
        SELECT application_name INTO heard
        FROM pg_stat_get_activity(tuner)
        WHERE starts_with(application_name, duty ->> 'session');
        EXIT WHEN NOT FOUND;
        silent_looks := CASE WHEN heard = heard_before THEN silent_looks + 1 ELSE 0 END;
        EXIT WHEN silent_looks >= looks_in_silence OR looks_left <= 0;
        heard_before := heard;
        looks_left := looks_left - 1;
        COMMIT;
        PERFORM pg_sleep(pause_seconds);
    END LOOP;
    RAISE LOG 'genesis-pg: process % is gone or silent; what it had on trial is put back', tuner;
    LOOP
        -- as who has logged in: a role that this one is set to may not see or end its sessions
        PERFORM set_config('role', 'none', true);
        PERFORM pg_terminate_backend(pid)
        FROM pg_stat_activity
        WHERE usename = session_user
            AND starts_with(application_name, duty ->> 'session')
            AND pid <> pg_backend_pid();
        EXIT WHEN NOT FOUND;
        COMMIT;
        PERFORM pg_sleep(0.02);
    END LOOP;
    COMMIT;
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
            IF knob ->> 'role' IS NULL THEN
                SELECT setting
                INTO said
                FROM pg_file_settings
                WHERE sourcefile LIKE '%/postgresql.auto.conf' AND lower(name) = knob ->> 'name'
                ORDER BY seqno DESC
                LIMIT 1;
            ELSE
                SELECT substr(line.text, strpos(line.text, '=') + 1)
                INTO said
                FROM pg_db_role_setting AS stored
                JOIN pg_roles AS role ON role.oid = stored.setrole AND role.rolname = knob ->> 'role'
                JOIN pg_database AS database
                    ON database.oid = stored.setdatabase AND database.datname = knob ->> 'database'
                CROSS JOIN LATERAL unnest(stored.setconfig) AS line (text)
                WHERE lower(split_part(line.text, '=', 1)) = knob ->> 'name';
            END IF;
            CONTINUE WHEN knob ->> 'new_written' IS DISTINCT FROM said;
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
        -- what stands in files, and not what somebody else has written there beside settings of roles
        IF EXISTS (SELECT FROM json_array_elements(duty -> 'knobs') AS listed (knob) WHERE listed.knob ->> 'role' IS NULL) THEN
            PERFORM pg_reload_conf();
        END IF;
    END IF;
    PERFORM pg_advisory_unlock({class}, {object});
END
$guard$
