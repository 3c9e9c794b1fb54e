-- Metric windows: one row for each, and one for each kind of operation in it. Partitioned by the day, in UTC.
CREATE TYPE genesis.histogram AS (
    first_bucket smallint,
    counts bigint[],
    sum_seconds double precision,
    max_seconds double precision
);
COMMENT ON TYPE genesis.histogram
    IS 'Durations in 128 linear buckets an octave from 1 microsecond: counts from the first filled bucket to the last';

CREATE SEQUENCE genesis.window_ids;

CREATE TABLE genesis.metric_windows (
    id bigint NOT NULL DEFAULT nextval('genesis.window_ids'),
    started_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    configuration_id text NOT NULL,
    run text GENERATED ALWAYS AS (labels ->> 'run') STORED,
    level text GENERATED ALWAYS AS (labels ->> 'level') STORED,
    phase text GENERATED ALWAYS AS (labels ->> 'phase') STORED,
    arm text GENERATED ALWAYS AS (labels ->> 'arm') STORED,
    operations_total bigint NOT NULL DEFAULT 0,
    failed_total bigint NOT NULL DEFAULT 0,
    skipped_total bigint NOT NULL DEFAULT 0,
    throughput_per_second double precision,
    mean_response_seconds double precision,
    p50_response_seconds double precision,
    p95_response_seconds double precision,
    p99_response_seconds double precision,
    p999_response_seconds double precision,
    mean_service_seconds double precision,
    p99_lag_seconds double precision,
    statement_calls_total bigint,
    mean_statement_seconds double precision,
    active_sessions double precision,
    commits_per_second double precision
        GENERATED ALWAYS AS ((rates ->> 'database.commits_per_second')::double precision) STORED,
    labels jsonb NOT NULL DEFAULT '{}',
    rates jsonb NOT NULL DEFAULT '{}',
    gauges jsonb NOT NULL DEFAULT '{}',
    waits jsonb NOT NULL DEFAULT '{}',
    errors jsonb NOT NULL DEFAULT '{}',
    error_classes text[],
    statements jsonb NOT NULL DEFAULT '[]',
    unseen jsonb NOT NULL DEFAULT '{}',
    lag genesis.histogram,
    PRIMARY KEY (started_at, id)
) PARTITION BY RANGE (started_at);
CREATE INDEX metric_windows_run ON genesis.metric_windows (run, started_at);
CREATE TABLE genesis.metric_windows_default PARTITION OF genesis.metric_windows DEFAULT;

COMMENT ON TABLE genesis.metric_windows IS 'What happened in each window of time; NULL is not measured, never zero';
COMMENT ON COLUMN genesis.metric_windows.configuration_id IS 'configurations.id in force during the whole window';
COMMENT ON COLUMN genesis.metric_windows.throughput_per_second IS 'Operations that succeeded, per second';
COMMENT ON COLUMN genesis.metric_windows.mean_response_seconds IS 'From the intended start to the end, failures too';
COMMENT ON COLUMN genesis.metric_windows.mean_service_seconds IS 'From the actual start to the end';
COMMENT ON COLUMN genesis.metric_windows.p99_lag_seconds IS 'How late the load generator''s own scheduler was';
COMMENT ON COLUMN genesis.metric_windows.skipped_total IS 'Operations that were due and never started';
COMMENT ON COLUMN genesis.metric_windows.statement_calls_total IS 'Growth of pg_stat_statements.calls, all statements';
COMMENT ON COLUMN genesis.metric_windows.mean_statement_seconds IS 'Mean execution time from pg_stat_statements';
COMMENT ON COLUMN genesis.metric_windows.active_sessions IS 'Average active sessions, from the activity samples';
COMMENT ON COLUMN genesis.metric_windows.rates IS 'Growth of counters, per second: database.commits_per_second and others';
COMMENT ON COLUMN genesis.metric_windows.waits IS 'Average active sessions by wait class';
COMMENT ON COLUMN genesis.metric_windows.errors IS 'Failed operations by SQLSTATE';
COMMENT ON COLUMN genesis.metric_windows.error_classes IS 'Classes of the errors, as genesis-pg sees them';
COMMENT ON COLUMN genesis.metric_windows.statements IS 'Growth by statement; genesis.statement_windows unfolds it';
COMMENT ON COLUMN genesis.metric_windows.unseen IS 'Source: why it could not be read or compared';

CREATE TABLE genesis.operation_windows (
    window_id bigint NOT NULL,
    started_at timestamptz NOT NULL,
    kind text NOT NULL,
    operations_total bigint NOT NULL,
    failed_total bigint NOT NULL,
    mean_response_seconds double precision,
    p50_response_seconds double precision,
    p95_response_seconds double precision,
    p99_response_seconds double precision,
    mean_service_seconds double precision,
    response genesis.histogram NOT NULL,
    service genesis.histogram NOT NULL,
    PRIMARY KEY (started_at, window_id, kind)
) PARTITION BY RANGE (started_at);
CREATE TABLE genesis.operation_windows_default PARTITION OF genesis.operation_windows DEFAULT;
COMMENT ON TABLE genesis.operation_windows IS 'Each kind of operation in each window; started_at is the window''s';

CREATE TABLE genesis.recorder (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    taken_at timestamptz NOT NULL,
    configuration_id text NOT NULL,
    server_values jsonb NOT NULL,
    unseen jsonb NOT NULL
);
COMMENT ON TABLE genesis.recorder IS 'What genesis.record_window() saw last: the beginning of its next window';

INSERT INTO genesis.schema_version (version, name) VALUES (2, 'windows');
