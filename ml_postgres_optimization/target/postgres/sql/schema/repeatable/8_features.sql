-- Features of recorded windows, the same by the same names as models.features. From the figures that stand beside the
-- histograms, which are those that Python reads from them. NULL is what Python calls NaN: not seen. Rates that are
-- not finite stay the texts as which they are stored; a forest takes both for missing.

CREATE OR REPLACE FUNCTION genesis.error_class(sqlstate text)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN coalesce(sqlstate, '') = '' THEN 'connection'
        WHEN sqlstate = '40001' THEN 'serialization'
        WHEN sqlstate = '40P01' THEN 'deadlock'
        WHEN sqlstate IN ('40003', '25006') THEN 'connection'
        WHEN sqlstate IN ('55P03', '57014', '25P03', '25P04', '57P05') THEN 'timeout'
        WHEN sqlstate LIKE '08%' OR sqlstate LIKE '57P%' THEN 'connection'
        WHEN sqlstate LIKE '53%' THEN 'resources'
        WHEN sqlstate LIKE '58%' OR sqlstate LIKE 'XX%' THEN 'internal'
        ELSE 'other'
    END
$$;
COMMENT ON FUNCTION genesis.error_class(text) IS 'The class of a failure, as genesis-pg sees it';

CREATE OR REPLACE FUNCTION genesis.encode_text(written text)
RETURNS double precision
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ('x' || left(encode(sha256(convert_to(written, 'UTF8')), 'hex'), 8))::bit(32)::bigint
        / 2.0::double precision ^ 32
$$;
COMMENT ON FUNCTION genesis.encode_text(text) IS 'A fraction between 0 and 1 that stands for the text';

CREATE OR REPLACE FUNCTION genesis.encode_knob(setting jsonb)
RETURNS double precision
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE jsonb_typeof(setting)
        WHEN 'boolean' THEN setting::boolean::integer::double precision
        WHEN 'string' THEN CASE setting #>> '{}'
            WHEN 'off' THEN 0
            WHEN 'on' THEN 1
            ELSE genesis.encode_text(setting #>> '{}')
        END
        WHEN 'number' THEN
            sign(setting::double precision) * ln(1 + abs(setting::double precision)) / ln(2::double precision)
    END
$$;
COMMENT ON FUNCTION genesis.encode_knob(jsonb)
    IS 'A knob''s value as a number: log2(1 + |value|) with its sign, 0 or 1 for off and on, a fraction for texts';

CREATE OR REPLACE FUNCTION genesis.telemetry_features()
RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ARRAY[
        'activity.connections', 'activity.blocked_sessions', 'activity.idle_in_transaction_sessions',
        'activity.longest_transaction_seconds', 'database.commits_per_second', 'database.rollbacks_per_second',
        'database.read_blocks_per_second', 'database.hit_blocks_per_second',
        'database.returned_tuples_per_second', 'database.fetched_tuples_per_second',
        'database.inserted_tuples_per_second', 'database.updated_tuples_per_second',
        'database.deleted_tuples_per_second', 'database.temp_bytes_per_second', 'database.deadlocks_per_second',
        'database.sessions_per_second', 'database.backends', 'tables.live_tuples', 'tables.dead_tuples',
        'tables.tuples_modified_since_analyze', 'tables.estimated_bytes', 'tables.seq_read_tuples_per_second',
        'tables.hot_updated_tuples_per_second', 'tables.autovacuums_per_second',
        'wal.generated_bytes_per_second', 'wal.full_page_images_per_second', 'wal.buffers_full_per_second',
        'wal.syncs_per_second', 'checkpointer.requested_checkpoints_per_second',
        'checkpointer.written_blocks_per_second', 'checkpointer.write_seconds_per_second',
        'checkpointer.sync_seconds_per_second', 'background_writer.cleaned_blocks_per_second',
        'background_writer.allocated_blocks_per_second', 'background_writer.backend_written_blocks_per_second',
        'locks.granted', 'locks.waiting', 'locks.oldest_wait_seconds', 'host.cpu_busy_seconds_per_second',
        'host.cpu_iowait_seconds_per_second', 'host.cpu_steal_seconds_per_second', 'host.load_average_1min',
        'host.memory_available_bytes', 'host.disk_read_bytes_per_second', 'host.disk_written_bytes_per_second',
        'host.disk_busy_seconds_per_second', 'host.pressure_cpu_some_seconds_per_second',
        'host.pressure_io_full_seconds_per_second', 'host.pressure_memory_some_seconds_per_second',
        'replication.replay_lag_bytes'
    ]
$$;
COMMENT ON FUNCTION genesis.telemetry_features()
    IS 'Rates and gauges of a window that are features under their own name';

CREATE OR REPLACE FUNCTION genesis.window_features(from_time timestamptz, until_time timestamptz)
RETURNS TABLE (
    window_id bigint, started_at timestamptz, ended_at timestamptz, run text, configuration_id text, features jsonb,
    server text)
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET jit = off
AS $$
    WITH met AS (
        SELECT DISTINCT within.server, within.run
        FROM genesis.metric_windows AS within
        WHERE within.started_at >= from_time AND within.started_at < until_time
    ),
    -- the first of each run may have an adjacent window before it, which the index finds
    chosen AS (
        SELECT within.*
        FROM genesis.metric_windows AS within
        WHERE within.started_at >= from_time AND within.started_at < until_time
        UNION ALL
        SELECT last.*
        FROM met
        CROSS JOIN LATERAL (
            SELECT newest.*
            FROM (
                SELECT before.*
                FROM genesis.metric_windows AS before
                WHERE before.run = met.run AND before.started_at < from_time
                ORDER BY before.started_at DESC, before.id DESC
                LIMIT 50
            ) AS newest
            -- not inside: taken for rare, it would have the planner sort all windows there are
            WHERE newest.server IS NOT DISTINCT FROM met.server
            LIMIT 1
        ) AS last
        UNION ALL
        SELECT last.*
        FROM met
        CROSS JOIN LATERAL (
            SELECT newest.*
            FROM (
                SELECT before.*
                FROM genesis.metric_windows AS before
                WHERE before.run IS NULL AND before.started_at < from_time
                ORDER BY before.started_at DESC, before.id DESC
                LIMIT 50
            ) AS newest
            -- not inside: taken for rare, it would have the planner sort all windows there are
            WHERE newest.server IS NOT DISTINCT FROM met.server
            LIMIT 1
        ) AS last
        WHERE met.run IS NULL
    ),
    knobs AS MATERIALIZED (
        SELECT
            known.id,
            CASE WHEN jsonb_typeof(known.values -> 'client.concurrency') = 'number'
                THEN nullif((known.values ->> 'client.concurrency')::double precision, 0) END AS concurrency,
            (
                SELECT coalesce(jsonb_object_agg('knob.' || knob.key, genesis.encode_knob(knob.value)), '{}')
                FROM jsonb_each(known.values) AS knob
                -- settings of single roles are none of the server's
                WHERE strpos(knob.key, '@') = 0
            ) AS features
        FROM genesis.configurations AS known
        WHERE known.id IN (
            SELECT met.configuration_id FROM genesis.metric_windows AS met
            WHERE met.started_at >= from_time AND met.started_at < until_time)
    ),
    whole AS (
        SELECT
            measured.*,
            measured.operations_total > 0 AS is_timed,
            nullif(measured.operations_total, 0)::double precision AS total,
            nullif(greatest(date_part('epoch', measured.ended_at - measured.started_at), 0), 0) AS seconds,
            date_part('epoch', measured.ended_at) AS clock,
            -- what is not finite is kept as text
            CASE WHEN jsonb_typeof(measured.rates -> 'load.due_per_second') = 'number'
                THEN (measured.rates ->> 'load.due_per_second')::double precision END AS due_per_second,
            CASE WHEN jsonb_typeof(measured.rates -> 'database.commits_per_second') = 'number'
                THEN (measured.rates ->> 'database.commits_per_second')::double precision END AS commits,
            CASE WHEN jsonb_typeof(measured.rates -> 'database.rollbacks_per_second') = 'number'
                THEN (measured.rates ->> 'database.rollbacks_per_second')::double precision END AS rollbacks,
            CASE WHEN jsonb_typeof(measured.rates -> 'statements.calls_per_second') = 'number'
                AND jsonb_typeof(measured.rates -> 'statements.execution_seconds_per_second') = 'number'
                THEN (measured.rates ->> 'statements.execution_seconds_per_second')::double precision
                    / nullif((measured.rates ->> 'statements.calls_per_second')::double precision, 0)
            END AS mean_of_all_statements,
            CASE WHEN measured.waits <> '{}' AND abs(measured.active_sessions) < 'Infinity'
                THEN measured.active_sessions END AS sessions
        FROM chosen AS measured
    ),
    summary AS (
        SELECT
            whole.*,
            CASE WHEN is_timed THEN (operations_total - failed_total) / seconds ELSE commits END AS throughput,
            CASE
                WHEN NOT is_timed THEN commits + rollbacks
                WHEN labels ->> 'loop' = 'closed' THEN NULL
                WHEN due_per_second IS NOT NULL THEN round(due_per_second * coalesce(seconds, 0)) / seconds
                ELSE (operations_total + skipped_total) / seconds
            END AS offered,
            CASE
                WHEN is_timed THEN ln(greatest(mean_response_seconds, 1e-6))
                WHEN statements <> '[]' THEN
                    CASE WHEN mean_statement_seconds >= 0 THEN ln(greatest(mean_statement_seconds, 1e-6)) END
                -- record_window() knows all statements together only
                WHEN mean_of_all_statements >= 0 THEN ln(greatest(mean_of_all_statements, 1e-6))
            END AS log_mean,
            CASE WHEN is_timed THEN ln(greatest(p95_response_seconds, 1e-6)) END AS log_p95,
            CASE WHEN is_timed THEN ln(greatest(p99_response_seconds, 1e-6)) END AS log_p99,
            CASE WHEN is_timed THEN ln(greatest(mean_service_seconds, 1e-6)) END AS log_service_mean
        FROM whole
    ),
    ordered AS (
        SELECT
            summary.*,
            -- adjacent: what may lie between is a tenth of its length, for the clock's sake
            abs(date_part('epoch', summary.started_at - lag(summary.ended_at) OVER before))
                <= 0.1 * date_part('epoch', lag(summary.ended_at) OVER before - lag(summary.started_at) OVER before)
                AS follows,
            lag(log_mean) OVER before AS log_mean_before,
            lag(throughput) OVER before AS throughput_before,
            lag(offered) OVER before AS offered_before,
            lag(sessions) OVER before AS sessions_before
        FROM summary
        WINDOW before AS (PARTITION BY summary.server, summary.run ORDER BY summary.started_at, summary.id)
    )
    SELECT
        seen.id,
        seen.started_at,
        seen.ended_at,
        seen.run,
        seen.configuration_id,
        jsonb_build_object(
            'load.offered_per_second', offered,
            'load.level', genesis.encode_text(seen.level),
            'mix.read', coalesce(kinds.read, CASE WHEN is_timed THEN 0 END) / total,
            'mix.write', coalesce(kinds.write, CASE WHEN is_timed THEN 0 END) / total,
            'mix.update', coalesce(kinds.update, CASE WHEN is_timed THEN 0 END) / total,
            'mix.delete', coalesce(kinds.delete, CASE WHEN is_timed THEN 0 END) / total,
            'mix.transaction', coalesce(kinds.transaction, CASE WHEN is_timed THEN 0 END) / total,
            'mix.bulk_insert', coalesce(kinds.bulk_insert, CASE WHEN is_timed THEN 0 END) / total,
            'mix.aggregate', coalesce(kinds.aggregate, CASE WHEN is_timed THEN 0 END) / total,
            'mix.join', coalesce(kinds."join", CASE WHEN is_timed THEN 0 END) / total,
            'load.throughput_per_second', throughput,
            'load.skipped_ratio', skipped_total / (total + skipped_total),
            'load.busy_ratio', throughput * exp(log_service_mean) / knobs.concurrency,
            'latency.log_mean', log_mean,
            'latency.log_p95', log_p95,
            'latency.log_p99', log_p99,
            'latency.log_service_mean', log_service_mean,
            'latency.log_queueing_ratio', log_mean - log_service_mean,
            'latency.is_timed_by_us', is_timed::integer,
            'lag.log_p99', CASE WHEN p99_lag_seconds > 0 THEN ln(p99_lag_seconds) END,
            'trend.log_mean', CASE WHEN follows THEN log_mean - log_mean_before END,
            'trend.log_throughput', CASE WHEN follows AND throughput > 0 AND throughput_before > 0
                THEN ln(throughput) - ln(throughput_before) END,
            'trend.log_offered', CASE WHEN follows AND offered > 0 AND offered_before > 0
                THEN ln(offered) - ln(offered_before) END,
            'trend.active_sessions', CASE WHEN follows THEN sessions - sessions_before END,
            'previous.log_mean', CASE WHEN follows THEN log_mean_before END,
            'errors.failed_ratio', failed_total / total,
            'errors.serialization_ratio', coalesce(failure.serialization, 0) / total,
            'errors.deadlock_ratio', coalesce(failure.deadlock, 0) / total,
            'errors.connection_ratio', coalesce(failure.connection, 0) / total,
            'errors.resources_ratio', coalesce(failure.resources, 0) / total,
            'errors.timeout_ratio', coalesce(failure.timeout, 0) / total,
            'errors.internal_ratio', coalesce(failure.internal, 0) / total,
            'errors.other_ratio', coalesce(failure.other, 0) / total,
            'waits.all_sessions', sessions,
            'waits.CPU_sessions', CASE WHEN seen.waits <> '{}' THEN coalesce(seen.waits -> 'CPU', '0') END,
            'waits.LWLock_sessions', CASE WHEN seen.waits <> '{}' THEN coalesce(seen.waits -> 'LWLock', '0') END,
            'waits.Lock_sessions', CASE WHEN seen.waits <> '{}' THEN coalesce(seen.waits -> 'Lock', '0') END,
            'waits.BufferPin_sessions',
                CASE WHEN seen.waits <> '{}' THEN coalesce(seen.waits -> 'BufferPin', '0') END,
            'waits.IO_sessions', CASE WHEN seen.waits <> '{}' THEN coalesce(seen.waits -> 'IO', '0') END,
            'waits.IPC_sessions', CASE WHEN seen.waits <> '{}' THEN coalesce(seen.waits -> 'IPC', '0') END,
            'waits.Client_sessions', CASE WHEN seen.waits <> '{}' THEN coalesce(seen.waits -> 'Client', '0') END,
            'waits.Timeout_sessions', CASE WHEN seen.waits <> '{}' THEN coalesce(seen.waits -> 'Timeout', '0') END,
            'waits.Extension_sessions',
                CASE WHEN seen.waits <> '{}' THEN coalesce(seen.waits -> 'Extension', '0') END,
            'time.day_sin', sin(2 * pi() * (clock - 86400 * floor(clock / 86400)) / 86400),
            'time.day_cos', cos(2 * pi() * (clock - 86400 * floor(clock / 86400)) / 86400),
            'time.window_seconds', date_part('epoch', seen.ended_at - seen.started_at)
        )
        || (
            SELECT jsonb_object_agg(every.name, told.values -> every.name)
            FROM unnest(genesis.telemetry_features()) AS every (name)
        )
        || knobs.features,
        seen.server
    FROM ordered AS seen
    JOIN knobs ON knobs.id = seen.configuration_id
    -- by the index, one window after the other: a join would not know how many there are
    CROSS JOIN LATERAL (
        SELECT
            sum(part.operations_total) FILTER (WHERE part.kind = 'read') AS read,
            sum(part.operations_total) FILTER (WHERE part.kind = 'write') AS write,
            sum(part.operations_total) FILTER (WHERE part.kind = 'update') AS update,
            sum(part.operations_total) FILTER (WHERE part.kind = 'delete') AS delete,
            sum(part.operations_total) FILTER (WHERE part.kind = 'transaction') AS transaction,
            sum(part.operations_total) FILTER (WHERE part.kind = 'bulk_insert') AS bulk_insert,
            sum(part.operations_total) FILTER (WHERE part.kind = 'aggregate') AS aggregate,
            sum(part.operations_total) FILTER (WHERE part.kind = 'join') AS "join"
        FROM genesis.operation_windows AS part
        WHERE part.started_at = seen.started_at AND part.window_id = seen.id
    ) AS kinds
    -- computed here, so that what is stored out of line is fetched once and not for every name
    CROSS JOIN LATERAL (SELECT seen.gauges || seen.rates AS values OFFSET 0) AS told
    CROSS JOIN LATERAL (
        SELECT
            sum(counted.failures) FILTER (WHERE counted.class = 'serialization') AS serialization,
            sum(counted.failures) FILTER (WHERE counted.class = 'deadlock') AS deadlock,
            sum(counted.failures) FILTER (WHERE counted.class = 'connection') AS connection,
            sum(counted.failures) FILTER (WHERE counted.class = 'resources') AS resources,
            sum(counted.failures) FILTER (WHERE counted.class = 'timeout') AS timeout,
            sum(counted.failures) FILTER (WHERE counted.class = 'internal') AS internal,
            sum(counted.failures) FILTER (WHERE counted.class = 'other') AS other
        FROM (
            SELECT genesis.error_class(code.key) AS class, code.value::double precision AS failures
            FROM jsonb_each_text(seen.errors) AS code
            OFFSET 0
        ) AS counted
    ) AS failure
    WHERE seen.started_at >= from_time
    ORDER BY seen.started_at, seen.id
$$;
COMMENT ON FUNCTION genesis.window_features(timestamptz, timestamptz)
    IS 'Features of the windows that began from the one moment on and before the other, with the window before each';

CREATE OR REPLACE FUNCTION genesis.window_features(recorded genesis.metric_windows)
RETURNS jsonb
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT seen.features
    FROM genesis.window_features(recorded.started_at, recorded.started_at + interval '1 microsecond') AS seen
    WHERE seen.window_id = recorded.id
$$;
COMMENT ON FUNCTION genesis.window_features(genesis.metric_windows)
    IS 'Features of one window; NULL where its configuration is not known';
