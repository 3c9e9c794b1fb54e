-- A window and its kinds of operations; nothing happens where it is there already.
WITH /* genesis-pg */ whole AS (
    INSERT INTO genesis.metric_windows (
        id, started_at, ended_at, configuration_id, server,
        operations_total, failed_total, skipped_total, throughput_per_second,
        mean_response_seconds, p50_response_seconds, p95_response_seconds, p99_response_seconds,
        p999_response_seconds, mean_service_seconds, p99_lag_seconds,
        statement_calls_total, mean_statement_seconds, active_sessions,
        labels, rates, gauges, waits, errors, error_classes, retried, ambiguous_total, statements, unseen, lag
    )
    VALUES (
        %(id)s, %(started_at)s, %(ended_at)s, %(configuration_id)s, %(server)s,
        %(operations_total)s, %(failed_total)s, %(skipped_total)s, %(throughput_per_second)s,
        %(mean_response_seconds)s, %(p50_response_seconds)s, %(p95_response_seconds)s, %(p99_response_seconds)s,
        %(p999_response_seconds)s, %(mean_service_seconds)s, %(p99_lag_seconds)s,
        %(statement_calls_total)s, %(mean_statement_seconds)s, %(active_sessions)s,
        %(labels)s, %(rates)s, %(gauges)s, %(waits)s, %(errors)s, %(error_classes)s, %(retried)s,
        %(ambiguous_total)s, %(statements)s, %(unseen)s,
        jsonb_populate_record(NULL::genesis.histogram, %(lag)s)
    )
    ON CONFLICT DO NOTHING
    RETURNING id, started_at
)
INSERT INTO genesis.operation_windows (
    window_id, started_at, kind, operations_total, failed_total, mean_response_seconds, p50_response_seconds,
    p95_response_seconds, p99_response_seconds, mean_service_seconds, response, service
)
SELECT
    whole.id, whole.started_at, part.kind, part.operations_total, part.failed_total, part.mean_response_seconds,
    part.p50_response_seconds, part.p95_response_seconds, part.p99_response_seconds, part.mean_service_seconds,
    part.response, part.service
FROM whole
CROSS JOIN jsonb_to_recordset(%(operations)s) AS part (
    kind text,
    operations_total bigint,
    failed_total bigint,
    mean_response_seconds double precision,
    p50_response_seconds double precision,
    p95_response_seconds double precision,
    p99_response_seconds double precision,
    mean_service_seconds double precision,
    response genesis.histogram,
    service genesis.histogram
)
