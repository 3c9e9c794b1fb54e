-- Recording by the server alone: genesis.record_window(), called by hand, by a timer or by pg_cron, records what
-- happened since its last call. Names are those of sql/statistics, so that its windows and ours can be compared.

CREATE OR REPLACE FUNCTION genesis.recorded_knobs()
RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- those of the configuration that genesis-pg recorded last, so that its identifiers and ours agree
    SELECT coalesce(
        (
            SELECT array(SELECT jsonb_object_keys(newest.values))
            FROM genesis.configurations AS newest
            WHERE newest.origin <> 'record_window'
            ORDER BY newest.first_seen DESC
            LIMIT 1
        ),
        ARRAY[
            'autovacuum_naptime', 'autovacuum_vacuum_cost_limit', 'autovacuum_vacuum_scale_factor',
            'bgwriter_delay', 'bgwriter_lru_maxpages', 'checkpoint_completion_target', 'checkpoint_timeout',
            'commit_delay', 'default_statistics_target', 'effective_cache_size', 'effective_io_concurrency', 'jit',
            'maintenance_work_mem', 'max_parallel_workers_per_gather', 'max_wal_size', 'random_page_cost',
            'shared_buffers', 'wal_buffers', 'wal_compression', 'wal_writer_delay', 'work_mem'
        ])
$$;

CREATE OR REPLACE FUNCTION genesis.configuration_in_force()
RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    canonical text;
    short_id text;
BEGIN
    -- the same text, and so the same identifier, as knobs.Configuration makes of the same values
    SELECT '{' || string_agg(to_json(knob.name) || ': ' || knob.value, ', ' ORDER BY knob.name COLLATE "C") || '}'
    INTO canonical
    FROM (
        SELECT
            name,
            CASE vartype
                WHEN 'bool' THEN setting::boolean::text
                WHEN 'integer' THEN setting
                WHEN 'real' THEN setting::double precision::text
                ELSE to_json(setting)::text
            END AS value
        FROM pg_settings
        WHERE name = ANY (genesis.recorded_knobs())
    ) AS knob;
    canonical := coalesce(canonical, '{}');
    short_id := left(encode(sha256(convert_to(canonical, 'UTF8')), 'hex'), 12);
    INSERT INTO genesis.configurations (id, values, origin)
    VALUES (short_id, canonical::jsonb, 'record_window')
    ON CONFLICT (id) DO NOTHING;
    RETURN short_id;
END
$$;
COMMENT ON FUNCTION genesis.configuration_in_force()
    IS 'Identifier of the settings as this session sees them; makes them known in genesis.configurations';

CREATE OR REPLACE FUNCTION genesis.statement_values()
RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    extension_schema constant name := (
        SELECT nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
        WHERE extname = 'pg_stat_statements');
    found jsonb;
BEGIN
    IF extension_schema IS NULL THEN
        RETURN jsonb_build_object('unseen', 'extension pg_stat_statements is not installed in this database');
    END IF;
    EXECUTE format(
        'SELECT jsonb_build_object('
        '    ''statements.calls_total'', sum(calls),'
        '    ''statements.execution_seconds_total'', sum(total_exec_time) / 1000,'
        '    ''statements_info.evictions_total'', (SELECT dealloc FROM %1$I.pg_stat_statements_info))'
        'FROM %1$I.pg_stat_statements(false) WHERE toplevel', extension_schema)
    INTO found;
    RETURN found;
EXCEPTION
    WHEN insufficient_privilege OR object_not_in_prerequisite_state THEN
        RETURN jsonb_build_object('unseen', SQLERRM);
    WHEN undefined_table OR undefined_function OR undefined_column THEN
        -- pg_upgrade takes the extension along in its old version
        RETURN jsonb_build_object('unseen', SQLERRM || ': ALTER EXTENSION pg_stat_statements UPDATE');
END
$$;

CREATE OR REPLACE FUNCTION genesis.server_values()
RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    seen jsonb;
    checkpoints jsonb;
BEGIN
    -- only the branch that runs is parsed, so each may name what only its versions have
    IF current_setting('server_version_num')::integer >= 170000 THEN
        SELECT jsonb_build_object(
            'checkpointer.timed_checkpoints_total', num_timed,
            'checkpointer.requested_checkpoints_total', num_requested,
            'checkpointer.write_seconds_total', write_time / 1000,
            'checkpointer.sync_seconds_total', sync_time / 1000,
            'checkpointer.written_blocks_total', buffers_written)
        INTO checkpoints
        FROM pg_stat_checkpointer;
    ELSE
        SELECT jsonb_build_object(
            'checkpointer.timed_checkpoints_total', checkpoints_timed,
            'checkpointer.requested_checkpoints_total', checkpoints_req,
            'checkpointer.write_seconds_total', checkpoint_write_time / 1000,
            'checkpointer.sync_seconds_total', checkpoint_sync_time / 1000,
            'checkpointer.written_blocks_total', buffers_checkpoint)
        INTO checkpoints
        FROM pg_stat_bgwriter;
    END IF;
    SELECT checkpoints || jsonb_build_object(
        'database.commits_total', database.xact_commit,
        'database.rollbacks_total', database.xact_rollback,
        'database.read_blocks_total', database.blks_read,
        'database.hit_blocks_total', database.blks_hit,
        'database.returned_tuples_total', database.tup_returned,
        'database.fetched_tuples_total', database.tup_fetched,
        'database.inserted_tuples_total', database.tup_inserted,
        'database.updated_tuples_total', database.tup_updated,
        'database.deleted_tuples_total', database.tup_deleted,
        'database.temp_files_total', database.temp_files,
        'database.temp_bytes_total', database.temp_bytes,
        'database.deadlocks_total', database.deadlocks,
        'database.active_seconds_total', database.active_time / 1000,
        'database.backends', database.numbackends,
        'background_writer.cleaned_blocks_total', writer.buffers_clean,
        'background_writer.stopped_rounds_total', writer.maxwritten_clean,
        'background_writer.allocated_blocks_total', writer.buffers_alloc,
        'wal.records_total', wal.wal_records,
        'wal.full_page_images_total', wal.wal_fpi,
        'wal.generated_bytes_total', wal.wal_bytes,
        'wal.buffers_full_total', wal.wal_buffers_full)
    INTO seen
    FROM pg_stat_database AS database
    CROSS JOIN pg_stat_bgwriter AS writer
    CROSS JOIN pg_stat_wal AS wal
    WHERE database.datname = current_database();
    RETURN seen;
END
$$;

CREATE OR REPLACE FUNCTION genesis.activity_values(OUT waits jsonb, OUT gauges jsonb)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    WITH session AS (
        SELECT state, coalesce(wait_event_type, 'CPU') AS wait, clock_timestamp() - xact_start AS age
        FROM pg_stat_activity
        WHERE pid <> pg_backend_pid()
            AND coalesce(backend_type, 'client backend') IN ('client backend', 'parallel worker')
            AND usesysid IS NOT NULL
            AND application_name NOT LIKE 'genesis-pg%'
    )
    SELECT
        (
            SELECT coalesce(jsonb_object_agg(active.wait, active.sessions), '{}')
            FROM (SELECT wait, count(*) AS sessions FROM session WHERE state = 'active' GROUP BY wait) AS active
        ),
        (
            SELECT jsonb_build_object(
                'activity.connections', count(*),
                'activity.blocked_sessions', count(*) FILTER (WHERE state = 'active' AND wait = 'Lock'),
                'activity.idle_in_transaction_sessions', count(*) FILTER (WHERE state LIKE 'idle in transaction%'),
                'activity.longest_transaction_seconds', coalesce(date_part('epoch', max(age)), 0))
            FROM session
        )
$$;

CREATE OR REPLACE FUNCTION genesis.growth(
    before jsonb, after jsonb, seconds double precision, OUT rates jsonb, OUT unseen jsonb)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    WITH counter AS (
        SELECT
            split_part(now_seen.name, '.', 1) AS source,
            regexp_replace(now_seen.name, '_total$', '_per_second') AS rate,
            now_seen.value::double precision - (before ->> now_seen.name)::double precision AS delta
        FROM jsonb_each_text(after) AS now_seen (name, value)
        WHERE right(now_seen.name, 6) = '_total' AND before ->> now_seen.name IS NOT NULL AND now_seen.value IS NOT NULL
    ),
    reset AS (
        SELECT DISTINCT source, 'its counters went backwards: statistics were reset' AS reason
        FROM counter WHERE delta < 0
        UNION
        SELECT 'statements', 'statements were evicted from pg_stat_statements, and their counters with them'
        FROM counter WHERE rate = 'statements_info.evictions_per_second' AND delta > 0
    )
    SELECT
        (
            SELECT coalesce(jsonb_object_agg(rate, delta / seconds), '{}')
            FROM counter WHERE source NOT IN (SELECT reset.source FROM reset)
        ),
        (SELECT coalesce(jsonb_object_agg(source, reason), '{}') FROM reset)
$$;

CREATE OR REPLACE FUNCTION genesis.record_window(labels jsonb DEFAULT '{}')
RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    instant constant timestamptz := clock_timestamp();
    all_labels jsonb := '{"run": "record_window", "phase": "recorded"}';
    before genesis.recorder;
    after genesis.recorder;
    statements jsonb;
    activity record;
    grown record;
    seconds double precision;
    window_id bigint;
    history_unseen text;
BEGIN
    IF jsonb_typeof(labels) <> 'object' THEN
        RAISE EXCEPTION 'labels are a JSON %, and must be an object', jsonb_typeof(labels)
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Write genesis.record_window(''{"phase": "nightly"}'').';
    END IF;
    SELECT all_labels || coalesce(jsonb_object_agg(label.key, label.value), '{}') INTO all_labels
    FROM jsonb_each_text(labels) AS label
    WHERE label.value IS NOT NULL;
    IF NOT pg_try_advisory_xact_lock(hashtextextended('genesis-pg record_window', 0)) THEN
        RETURN NULL;  -- another session records this very window
    END IF;
    PERFORM genesis.maintain();
    BEGIN
        PERFORM genesis.record_own_configuration();
    EXCEPTION
        WHEN OTHERS THEN
            -- the window is kept all the same
            RAISE LOG 'genesis.record_window() cannot keep the history of the configuration: %', SQLERRM;
            history_unseen := SQLERRM;
    END;
    PERFORM pg_stat_clear_snapshot();
    statements := genesis.statement_values();
    after.taken_at := instant;
    after.configuration_id := genesis.configuration_in_force();
    after.unseen := jsonb_strip_nulls(jsonb_build_object(
        'statements', statements -> 'unseen',
        'history', history_unseen,
        'activity', CASE WHEN NOT pg_has_role('pg_read_all_stats', 'USAGE')
            THEN 'sessions of other roles are hidden from this one: GRANT pg_monitor' END));
    after.server_values := genesis.server_values() || jsonb_strip_nulls(statements - 'unseen');

    SELECT * INTO before FROM genesis.recorder;
    INSERT INTO genesis.recorder (taken_at, configuration_id, server_values, unseen)
    VALUES (after.taken_at, after.configuration_id, after.server_values, after.unseen)
    ON CONFLICT (only_row) DO UPDATE SET (taken_at, configuration_id, server_values, unseen)
        = ROW (excluded.taken_at, excluded.configuration_id, excluded.server_values, excluded.unseen);
    seconds := date_part('epoch', after.taken_at - before.taken_at);
    IF before.taken_at IS NULL OR seconds <= 0 THEN
        RETURN NULL;  -- the first call, or the clock was set back: this is a base, and the next call has a window
    END IF;

    SELECT * INTO activity FROM genesis.activity_values();
    SELECT * INTO grown FROM genesis.growth(before.server_values, after.server_values, seconds);
    IF before.configuration_id <> after.configuration_id THEN
        grown.unseen := grown.unseen || '{"configuration": "it changed in the course of the window"}';
    END IF;
    INSERT INTO genesis.metric_windows (
        started_at, ended_at, configuration_id, server, labels, rates, gauges, waits, unseen,
        active_sessions, statement_calls_total, mean_statement_seconds)
    VALUES (
        before.taken_at,
        after.taken_at,
        after.configuration_id,
        genesis.own_server(),
        all_labels,
        grown.rates,
        activity.gauges || jsonb_build_object('database.backends', after.server_values -> 'database.backends'),
        activity.waits,
        after.unseen || grown.unseen,
        (SELECT coalesce(sum(value::double precision), 0) FROM jsonb_each_text(activity.waits)),
        round((grown.rates ->> 'statements.calls_per_second')::double precision * seconds),
        (grown.rates ->> 'statements.execution_seconds_per_second')::double precision
            / nullif((grown.rates ->> 'statements.calls_per_second')::double precision, 0))
    RETURNING id INTO window_id;
    RETURN window_id;
END
$$;
COMMENT ON FUNCTION genesis.record_window(jsonb)
    IS 'Record what happened since the last call; returns the window, or NULL for the first call, which takes the base';

CREATE OR REPLACE FUNCTION genesis.limitations()
RETURNS SETOF text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT pg_has_role('pg_read_all_stats', 'USAGE') THEN
        RETURN NEXT format('waits and sessions of other roles stay hidden: GRANT pg_monitor TO %I', current_user);
    END IF;
    IF NOT current_setting('track_counts')::boolean OR NOT current_setting('track_activities')::boolean THEN
        RETURN NEXT 'rates and waits are not counted: set track_counts and track_activities to on';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_stat_statements') THEN
        -- the row is hidden from roles that may not know; they are told the whole way
        RETURN NEXT 'latency by statement is not seen: ' || CASE
            WHEN (SELECT setting FROM pg_settings WHERE name = 'shared_preload_libraries') LIKE '%pg_stat_statements%'
                THEN 'CREATE EXTENSION pg_stat_statements'
            ELSE 'put pg_stat_statements into shared_preload_libraries, restart, and CREATE EXTENSION pg_stat_statements'
        END;
    ELSIF genesis.statement_values() ? 'unseen' THEN
        RETURN NEXT 'latency by statement is not seen: ' || (genesis.statement_values() ->> 'unseen');
    END IF;
    IF genesis.own_server() IS NULL THEN
        RETURN NEXT format('the history of the configuration is kept by genesis-pg only, not by record_window(): '
            'GRANT EXECUTE ON FUNCTION pg_control_system() TO %I', current_user);
    END IF;
END
$$;
COMMENT ON FUNCTION genesis.limitations() IS 'What this role, on this server, cannot record, and how to mend it';
