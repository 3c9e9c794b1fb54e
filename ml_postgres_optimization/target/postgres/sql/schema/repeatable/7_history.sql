-- The history of the configuration. Whoever looks hands in what is in force; what differs from what was known ends one
-- period and begins the next. Who brought it is read from the mirror of the journal. While a trial runs, what is on trial
-- is not handed in: the history knows what was proven, genesis.journal the trial's every step.

CREATE OR REPLACE FUNCTION genesis.setting_text(value text, unit text)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    WITH units (name, dimension, factor) AS (
        VALUES
            ('B', 'memory', 1::numeric), ('kB', 'memory', 1024), ('MB', 'memory', 1048576),
            ('GB', 'memory', 1073741824), ('TB', 'memory', 1099511627776),
            ('us', 'time', 1), ('ms', 'time', 1000), ('s', 'time', 1000000), ('min', 'time', 60000000),
            ('h', 'time', 3600000000), ('d', 'time', 86400000000)
    ),
    plain AS (
        -- what is no positive number (-1, 0, on) is written without a unit
        SELECT
            CASE WHEN value ~ '^([0-9]+\.?[0-9]*|\.[0-9]+)$' THEN nullif(value::numeric, 0) END
                * coalesce(nullif(substring(unit FROM '^[0-9]+'), '')::numeric, 1) AS number,
            substring(unit FROM '[A-Za-z]+$') AS unit_name
    )
    SELECT coalesce(
        (
            SELECT trim_scale(plain.number * given.factor / shown.factor)::text || shown.name
            FROM plain
            JOIN units AS given ON given.name = plain.unit_name
            JOIN units AS shown USING (dimension)
            WHERE mod(plain.number * given.factor, shown.factor) = 0
            ORDER BY shown.factor DESC
            LIMIT 1
        ),
        value)
$$;
COMMENT ON FUNCTION genesis.setting_text(text, text) IS 'A value as SHOW prints it, and as ALTER SYSTEM takes it: 128MB';

CREATE OR REPLACE FUNCTION genesis.is_same_setting(seen text, journalled jsonb)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE jsonb_typeof(journalled)
        WHEN 'boolean' THEN seen = CASE WHEN journalled::boolean THEN 'on' ELSE 'off' END
        WHEN 'number' THEN CASE
            WHEN seen ~ '^-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$'
            -- the server shows reals with six digits
            THEN abs(seen::numeric - journalled::numeric) <= 1e-5 * abs(journalled::numeric)
            ELSE false
        END
        ELSE lower(seen) = lower(journalled #>> '{}')
    END
$$;

CREATE OR REPLACE FUNCTION genesis.journalled_changes(of_server text, after_number bigint)
RETURNS TABLE (number bigint, at timestamptz, name text, value jsonb, brought_by text, trial_id text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT
        event.number,
        event.at,
        knob.item ->> 'name',
        knob.item -> CASE WHEN step.is_forward THEN 'new' ELSE 'old' END,
        CASE
            WHEN step.is_forward AND event.entry ->> 'trial' LIKE 'rollback-%' THEN 'rollback'
            WHEN step.is_forward THEN 'trial'
            WHEN EXISTS (
                SELECT FROM genesis.journal AS earlier
                WHERE earlier.server = of_server AND earlier.number < event.number
                    AND earlier.entry ->> 'trial' = event.entry ->> 'trial'
                    AND earlier.entry ->> 'kind' = 'confirmed'
            ) THEN 'rollback'
            ELSE 'undo'
        END,
        event.entry ->> 'trial'
    FROM genesis.journal AS event
    CROSS JOIN LATERAL (SELECT event.entry ->> 'kind' IN ('applied', 'confirmed') AS is_forward) AS step
    JOIN genesis.journal AS intent
        ON intent.server = of_server
        AND intent.entry ->> 'kind' = 'intent'
        AND intent.entry ->> 'trial' = event.entry ->> 'trial'
    CROSS JOIN LATERAL jsonb_array_elements(intent.entry -> 'knobs') AS knob (item)
    WHERE event.server = of_server
        AND event.number > after_number
        AND event.entry ->> 'kind' IN ('applied', 'withdrawn', 'confirmed', 'reverted')
        AND NOT coalesce(event.entry -> 'foreign' ? (knob.item ->> 'name'), false)
$$;
COMMENT ON FUNCTION genesis.journalled_changes(text, bigint)
    IS 'What records of the journal after that number left in force, knob by knob';

CREATE OR REPLACE FUNCTION genesis.bring_back_from_the_future(of_server text, seen_at timestamptz)
RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM genesis.configuration_history
    WHERE server = of_server AND lower(sys_period) >= seen_at AND NOT upper_inf(sys_period);
    UPDATE genesis.configuration_history SET sys_period = tstzrange(lower(sys_period), seen_at)
    WHERE server = of_server AND lower(sys_period) < seen_at AND upper(sys_period) > seen_at;
    UPDATE genesis.configuration_history
    SET sys_period = tstzrange(seen_at, NULL), not_before = least(not_before, seen_at)
    WHERE server = of_server AND lower(sys_period) > seen_at;
    UPDATE genesis.observed_servers
    SET known_since = least(known_since, seen_at), observed_at = seen_at
    WHERE server = of_server;
$$;
COMMENT ON FUNCTION genesis.bring_back_from_the_future(text, timestamptz)
    IS 'Where a clock was ahead: what it recorded last began now, and what it saw come and go in between is dropped';

CREATE OR REPLACE FUNCTION genesis.record_configuration(
    of_server text, seen jsonb, seen_at timestamptz, loaded_at timestamptz)
RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known genesis.observed_servers;
    is_new boolean;
    newest_number bigint;
    change record;
    now_at timestamptz;
    changed_at timestamptz;
    is_exact boolean;
    changed integer := 0;
BEGIN
    INSERT INTO genesis.observed_servers (server, known_since, observed_at, journal_number)
    VALUES (of_server, seen_at, seen_at, 0)
    ON CONFLICT DO NOTHING;
    is_new := FOUND;
    SELECT * INTO known FROM genesis.observed_servers WHERE server = of_server FOR UPDATE;
    -- only now: whoever had the row until then may have considered records that were not there before
    newest_number := (SELECT coalesce(max(number), 0) FROM genesis.journal WHERE server = of_server);
    -- waiting until a wrong clock's time has come, the history would tell for as long what does not hold
    IF known.observed_at > seen_at + interval '1 hour' THEN
        PERFORM genesis.bring_back_from_the_future(of_server, seen_at);
        known.observed_at := seen_at;
    END IF;
    -- in the order in which they come, even where a clock was set back
    now_at := greatest(seen_at, known.observed_at);
    FOR change IN
        WITH event AS (
            SELECT DISTINCT ON (happened.name) happened.*
            FROM genesis.journalled_changes(of_server, known.journal_number) AS happened
            ORDER BY happened.name, happened.number DESC
        )
        SELECT
            found.name, found.value, found.unit, lower(before.sys_period) AS began,
            event.at,
            coalesce(event.brought_by, left_behind.brought_by) AS brought_by,
            coalesce(event.trial_id, left_behind.trial_id) AS trial_id
        FROM jsonb_to_recordset(seen) AS found (name text, value text, unit text)
        LEFT JOIN genesis.configuration_history AS before
            ON before.server = of_server AND before.name = found.name AND upper_inf(before.sys_period)
        LEFT JOIN event ON event.name = found.name AND genesis.is_same_setting(found.value, event.value)
        LEFT JOIN LATERAL (
            -- what a run left on trial is put back by those who stand by, who keep no journal
            SELECT 'undo' AS brought_by, before.trial_id
            FROM genesis.journal AS intent
            CROSS JOIN LATERAL jsonb_array_elements(intent.entry -> 'knobs') AS knob (item)
            WHERE before.brought_by = 'trial' AND event.number IS NULL
                AND intent.server = of_server AND intent.entry ->> 'trial' = before.trial_id
                AND intent.entry ->> 'kind' = 'intent'
                AND knob.item ->> 'name' = found.name AND genesis.is_same_setting(found.value, knob.item -> 'old')
                AND NOT EXISTS (
                    SELECT FROM genesis.journal AS whole
                    WHERE whole.server = of_server AND whole.entry ->> 'trial' = before.trial_id
                        AND whole.entry ->> 'kind' = 'confirmed')
            LIMIT 1
        ) AS left_behind ON true
        WHERE found.value IS DISTINCT FROM before.value
    LOOP
        is_exact := change.at IS NOT NULL AND change.began IS NOT NULL;
        changed_at := CASE
            WHEN is_new OR change.began IS NULL THEN now_at
            WHEN is_exact THEN least(greatest(change.at, known.observed_at), now_at)
            WHEN loaded_at > known.observed_at THEN least(loaded_at, now_at)
            ELSE now_at
        END;
        IF changed_at <= change.began THEN
            changed_at := change.began + interval '1 microsecond';
        END IF;
        UPDATE genesis.configuration_history SET sys_period = tstzrange(lower(sys_period), changed_at)
        WHERE server = of_server AND name = change.name AND upper_inf(sys_period);
        INSERT INTO genesis.configuration_history (
            server, name, value, unit, sys_period, not_before, brought_by, trial_id)
        VALUES (
            of_server, change.name, change.value, change.unit, tstzrange(changed_at, NULL),
            CASE WHEN is_exact THEN changed_at ELSE least(known.observed_at, changed_at) END,
            CASE WHEN change.began IS NULL THEN 'first seen' ELSE coalesce(change.brought_by, 'somebody else') END,
            CASE WHEN change.began IS NOT NULL THEN change.trial_id END);
        changed := changed + 1;
    END LOOP;
    -- what was ours, and was seen before the journal that says so could be mirrored
    UPDATE genesis.configuration_history AS late
    SET brought_by = event.brought_by, trial_id = event.trial_id
    FROM genesis.journalled_changes(of_server, known.journal_number) AS event
    WHERE late.server = of_server AND late.brought_by = 'somebody else'
        AND late.name = event.name AND genesis.is_same_setting(late.value, event.value)
        -- the clocks of two machines are told to be within a second
        AND event.at BETWEEN late.not_before - interval '1 second' AND lower(late.sys_period) + interval '1 second';
    UPDATE genesis.observed_servers SET observed_at = now_at, journal_number = newest_number
    WHERE server = of_server;
    RETURN changed;
END
$$;
COMMENT ON FUNCTION genesis.record_configuration(text, jsonb, timestamptz, timestamptz)
    IS 'Compare [{name, value, unit}] with what was known, and keep what differs; returns how many settings that are';

CREATE OR REPLACE FUNCTION genesis.settings_in_force()
RETURNS TABLE (name text, value text, unit text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- the same as sql/settings/in_force.sql, which says why; what the session has set hides where it had it from
    SELECT live.name, live.reset_val, live.unit
    FROM pg_settings AS live
    WHERE live.reset_val IS NOT NULL
        AND (live.context <> 'internal' OR live.name = 'server_version')
        AND live.source NOT IN ('session', 'client', 'global', 'database', 'user', 'database user')
        AND live.name NOT IN (
            'application_name', 'client_encoding', 'role', 'seed', 'session_authorization',
            'transaction_deferrable', 'transaction_isolation', 'transaction_read_only')
        AND NOT (live.vartype = 'string' AND live.name ~ '_(command|conninfo)$|\.')
        AND NOT EXISTS (
            SELECT
            FROM pg_db_role_setting AS given
            JOIN LATERAL unnest(given.setconfig) AS line (text) ON lower(split_part(line.text, '=', 1)) = lower(live.name)
            WHERE given.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
                AND given.setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = session_user))
        )
$$;
COMMENT ON FUNCTION genesis.settings_in_force() IS 'What holds for all sessions of this server';

CREATE OR REPLACE FUNCTION genesis.own_server()
RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF has_function_privilege('pg_control_system()', 'EXECUTE') THEN
        RETURN (SELECT system_identifier::text FROM pg_control_system());
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION genesis.own_server() IS 'System identifier of this server; NULL where the role may not know it';

CREATE OR REPLACE FUNCTION genesis.record_own_configuration()
RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '250ms'
AS $$
BEGIN
    -- an optimiser at work knows what it has on trial, and looks by itself; its lock is that of sql/lock/acquire.sql
    IF genesis.own_server() IS NULL OR EXISTS (
        SELECT FROM pg_locks
        WHERE locktype = 'advisory' AND classid = 1734700645 AND objid = 1869640809 AND objsubid = 2 AND granted
    ) THEN
        RETURN NULL;
    END IF;
    RETURN genesis.record_configuration(
        genesis.own_server(),
        (SELECT jsonb_agg(seen) FROM genesis.settings_in_force() AS seen),
        clock_timestamp(),
        pg_conf_load_time());
END
$$;
COMMENT ON FUNCTION genesis.record_own_configuration()
    IS 'Record what is in force on this server; NULL where an optimiser is at work, which does so itself';

CREATE OR REPLACE FUNCTION genesis.configuration_as_of(at timestamptz DEFAULT now(), of_server text DEFAULT NULL)
RETURNS TABLE (
    name text, value text, unit text, setting text, since timestamptz, not_before timestamptz, brought_by text,
    trial_id text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    chosen text := coalesce(of_server, genesis.own_server());
    servers constant text[] := array(SELECT observed.server FROM genesis.observed_servers AS observed ORDER BY 1);
BEGIN
    IF of_server IS NULL AND (chosen IS NULL OR chosen <> ALL (servers)) THEN
        IF cardinality(servers) > 1 THEN
            RAISE EXCEPTION 'configurations of % servers are recorded here', cardinality(servers)
                USING ERRCODE = 'invalid_parameter_value',
                    HINT = format('Say which: genesis.configuration_as_of(now(), %L).', servers[1]);
        END IF;
        chosen := servers[1];
    END IF;
    RETURN QUERY
    SELECT
        past.name, past.value, past.unit, genesis.setting_text(past.value, past.unit), lower(past.sys_period),
        past.not_before, past.brought_by, past.trial_id
    FROM genesis.configuration_history AS past
    JOIN genesis.observed_servers AS observed USING (server)
    WHERE past.server = chosen AND past.sys_period @> at AND at >= observed.known_since
    ORDER BY past.name;
END
$$;
COMMENT ON FUNCTION genesis.configuration_as_of(timestamptz, text)
    IS 'What was in force at that moment, by default on this server; no row before it was first looked at';

CREATE OR REPLACE VIEW genesis.configuration_changes AS
SELECT server, at, name, old, new, brought_by, trial_id, not_before
FROM (
    SELECT
        server,
        lower(sys_period) AS at,
        name,
        lag(genesis.setting_text(value, unit)) OVER (PARTITION BY server, name ORDER BY lower(sys_period)) AS old,
        genesis.setting_text(value, unit) AS new,
        brought_by,
        trial_id,
        not_before
    FROM genesis.configuration_history
) AS change
WHERE brought_by <> 'first seen'
ORDER BY at DESC, name;
COMMENT ON VIEW genesis.configuration_changes IS 'Every change of a setting, newest first: when, from, to, by whom';

CREATE OR REPLACE FUNCTION genesis.forget_configurations()
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '250ms'
AS $$
DECLARE
    expired_before constant timestamptz := (SELECT now() - make_interval(days => history_days) FROM genesis.settings);
    forgotten integer;
BEGIN
    DELETE FROM genesis.configuration_history WHERE upper(sys_period) <= expired_before;
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    IF forgotten > 0 THEN
        -- of the time before, nothing whole can be told any more
        UPDATE genesis.observed_servers SET known_since = expired_before WHERE known_since < expired_before;
    END IF;
    RETURN forgotten;
END
$$;
COMMENT ON FUNCTION genesis.forget_configurations()
    IS 'Drop periods that ended more than settings.history_days ago; returns how many went';

REVOKE EXECUTE ON FUNCTION genesis.forget_configurations() FROM PUBLIC;
