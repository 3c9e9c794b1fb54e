-- Views for people: milliseconds and per cent. Hours of the day are in the time zone of the session.
-- CREATE OR REPLACE can only add columns at the end; what changes more has to be dropped by the upgrade that changes it.

CREATE OR REPLACE VIEW genesis.recent_metrics AS
SELECT
    started_at,
    ended_at,
    run,
    level,
    phase,
    arm,
    configuration_id,
    operations_total AS operations,
    failed_total AS failed,
    skipped_total AS skipped,
    round((100.0 * failed_total / nullif(operations_total, 0))::numeric, 3) AS error_percent,
    round(throughput_per_second::numeric, 1) AS operations_per_second,
    round(commits_per_second::numeric, 1) AS commits_per_second,
    round((1000 * coalesce(mean_response_seconds, mean_statement_seconds))::numeric, 3) AS mean_ms,
    CASE
        WHEN mean_response_seconds IS NOT NULL THEN 'operations'
        WHEN mean_statement_seconds IS NOT NULL THEN 'pg_stat_statements'
    END AS mean_measured_by,
    round((1000 * p50_response_seconds)::numeric, 3) AS p50_ms,
    round((1000 * p95_response_seconds)::numeric, 3) AS p95_ms,
    round((1000 * p99_response_seconds)::numeric, 3) AS p99_ms,
    round((1000 * p999_response_seconds)::numeric, 3) AS p999_ms,
    round(active_sessions::numeric, 2) AS active_sessions,
    waits,
    errors,
    unseen,
    retried,
    ambiguous_total AS ambiguous,
    server
FROM genesis.metric_windows
WHERE ended_at > now() - interval '1 hour'
    AND started_at > now() - interval '2 days'  -- for the planner: only partitions that can matter
ORDER BY started_at DESC;
COMMENT ON VIEW genesis.recent_metrics IS 'The windows of the last hour, newest first';

CREATE OR REPLACE VIEW genesis.metrics_by_dimension AS
WITH measured AS (
    SELECT
        whole.id,
        date_part('hour', whole.started_at)::integer AS hour_of_day,
        whole.level,
        part.kind,
        whole.configuration_id,
        part.operations_total,
        part.failed_total,
        part.mean_response_seconds,
        part.p99_response_seconds
    FROM genesis.metric_windows AS whole
    JOIN genesis.operation_windows AS part ON part.started_at = whole.started_at AND part.window_id = whole.id
    UNION ALL
    SELECT
        id,
        date_part('hour', started_at)::integer,
        level,
        'statement',
        configuration_id,
        statement_calls_total,
        0,
        mean_statement_seconds,
        NULL
    FROM genesis.metric_windows
    WHERE operations_total = 0 AND statement_calls_total > 0
)
SELECT
    CASE WHEN grouping(hour_of_day) = 1 THEN '(all)' ELSE to_char(hour_of_day, 'FM00') END AS hour_of_day,
    CASE WHEN grouping(level) = 1 THEN '(all)' ELSE coalesce(level, '(none)') END AS level,
    CASE WHEN grouping(kind) = 1 THEN '(all)' ELSE kind END AS operation,
    CASE WHEN grouping(configuration_id) = 1 THEN '(all)' ELSE configuration_id END AS configuration_id,
    4 - grouping(hour_of_day) - grouping(level) - grouping(kind) - grouping(configuration_id) AS dimensions,
    count(DISTINCT id) AS windows,
    sum(operations_total)::bigint AS operations,
    sum(failed_total)::bigint AS failed,
    round((100.0 * sum(failed_total) / nullif(sum(operations_total), 0))::numeric, 3) AS error_percent,
    round((1000 * sum(mean_response_seconds * operations_total) / nullif(sum(operations_total), 0))::numeric, 3)
        AS mean_ms,
    round((1000 * sum(p99_response_seconds * operations_total)
        / nullif(sum(operations_total) FILTER (WHERE p99_response_seconds IS NOT NULL), 0))::numeric, 3)
        AS average_p99_ms,
    round((1000 * max(p99_response_seconds))::numeric, 3) AS worst_p99_ms
FROM measured
GROUP BY CUBE (hour_of_day, level, kind, configuration_id);
COMMENT ON VIEW genesis.metrics_by_dimension
    IS 'CUBE of hour of day, load level, operation and configuration; ''(all)'' is a total';
COMMENT ON COLUMN genesis.metrics_by_dimension.dimensions IS 'How many of the four are fixed: 0 is the grand total';
COMMENT ON COLUMN genesis.metrics_by_dimension.average_p99_ms IS 'Of the windows'' p99, weighted by operations';

CREATE OR REPLACE VIEW genesis.operations_by_hour AS
SELECT
    date_trunc('hour', at) AS hour,
    format('%I.%I', schema_name, table_name) AS table_name,
    operation,
    count(*) AS statements,
    sum(rows)::bigint AS rows,
    round((1000 * avg(date_part('epoch', at - statement_started_at)))::numeric, 3) AS mean_ms,
    round((1000 * max(date_part('epoch', at - statement_started_at)))::numeric, 3) AS max_ms,
    array_agg(DISTINCT role_name) AS roles
FROM genesis.operations
GROUP BY 1, 2, 3
ORDER BY 1 DESC, 2, 3;
COMMENT ON VIEW genesis.operations_by_hour IS 'Statements on watched tables, by hour, table and operation';

CREATE OR REPLACE VIEW genesis.watched_tables AS
SELECT
    watch_trigger.tgrelid::regclass AS table_name,
    pg_get_userbyid(relation.relowner) AS owner,
    array_agg(upper(substr(watch_trigger.tgname, 15)) ORDER BY watch_trigger.tgname) AS operations,
    bool_and(watch_trigger.tgenabled <> 'D') AS enabled
FROM pg_trigger AS watch_trigger
JOIN pg_class AS relation ON relation.oid = watch_trigger.tgrelid
WHERE watch_trigger.tgfoid = 'genesis.record_operation()'::regprocedure
GROUP BY watch_trigger.tgrelid, relation.relowner;
COMMENT ON VIEW genesis.watched_tables IS 'Tables with the triggers of genesis.watch_table()';

CREATE OR REPLACE VIEW genesis.configuration_effects AS
WITH effect AS (
    SELECT
        run,
        level,
        configuration_id,
        min(started_at) AS first_seen,
        count(*) AS windows,
        sum(coalesce(nullif(operations_total, 0), statement_calls_total)) AS operations,
        sum(failed_total) AS failed,
        sum(coalesce(mean_response_seconds, mean_statement_seconds)
            * coalesce(nullif(operations_total, 0), statement_calls_total))
            / nullif(sum(coalesce(nullif(operations_total, 0), statement_calls_total)), 0) AS mean_seconds,
        avg(p99_response_seconds) AS p99_seconds,
        avg(coalesce(throughput_per_second, commits_per_second)) AS throughput_per_second
    FROM genesis.metric_windows
    WHERE operations_total > 0 OR statement_calls_total > 0
    GROUP BY run, level, configuration_id
),
compared AS (
    SELECT
        effect.*,
        first_value(configuration_id) OVER base AS base_id,
        first_value(mean_seconds) OVER base AS base_mean_seconds
    FROM effect
    WINDOW base AS (PARTITION BY run, level ORDER BY first_seen)
)
SELECT
    run,
    level,
    compared.configuration_id,
    base_id AS base_configuration_id,
    windows,
    operations::bigint AS operations,
    failed::bigint AS failed,
    round((1000 * mean_seconds)::numeric, 3) AS mean_ms,
    round((1000 * p99_seconds)::numeric, 3) AS average_p99_ms,
    round(throughput_per_second::numeric, 1) AS operations_per_second,
    round((mean_seconds / nullif(base_mean_seconds, 0))::numeric, 3) AS mean_ratio_to_base,
    (
        SELECT jsonb_object_agg(knob.key, knob.value)
        FROM genesis.configurations AS mine
        CROSS JOIN LATERAL jsonb_each(mine.values) AS knob
        LEFT JOIN genesis.configurations AS base ON base.id = compared.base_id
        WHERE mine.id = compared.configuration_id AND knob.value IS DISTINCT FROM base.values -> knob.key
    ) AS knobs_unlike_base
FROM compared;
COMMENT ON VIEW genesis.configuration_effects
    IS 'Each configuration against the first of its run and level; for a verdict, see trial_ledger: this is no trial';

CREATE OR REPLACE VIEW genesis.trial_ledger AS
SELECT
    trial.id,
    trial.started_at,
    trial.ended_at,
    trial.origin,
    trial.outcome,
    round((100 * (1 - nullif(trial.ratio, 'NaN')))::numeric, 2) AS gain_percent,
    round((100 * (1 - nullif(trial.ratio_high, 'NaN')))::numeric, 2) AS gain_percent_low,
    round((100 * (1 - nullif(trial.ratio_low, 'NaN')))::numeric, 2) AS gain_percent_high,
    round((100 * (1 - trial.predicted_ratio))::numeric, 2) AS predicted_gain_percent,
    (SELECT count(*) FROM genesis.trial_pairs AS pair WHERE pair.trial_id = trial.id) AS pairs,
    (
        SELECT jsonb_object_agg(knob.key, jsonb_build_array(baseline.values -> knob.key, knob.value))
        FROM jsonb_each(candidate.values) AS knob
        WHERE knob.value IS DISTINCT FROM baseline.values -> knob.key
    ) AS changed_knobs,
    trial.reason,
    trial.verdict_reason,
    trial.design,
    trial.slower_parts
FROM genesis.trials AS trial
JOIN genesis.configurations AS baseline ON baseline.id = trial.baseline_id
JOIN genesis.configurations AS candidate ON candidate.id = trial.candidate_id
ORDER BY trial.started_at;
COMMENT ON VIEW genesis.trial_ledger IS 'Every trial, with its gain, the interval of it, and the knobs from and to';

CREATE OR REPLACE VIEW genesis.prediction_scores AS
SELECT
    kind,
    model_id,
    count(*) AS predictions,
    count(actual) AS scored,
    avg(abs(value - actual)) AS mean_absolute_error,
    avg(abs(naive_value - actual)) AS naive_mean_absolute_error,
    avg((value - actual) ^ 2) AS mean_squared_error,
    avg((naive_value - actual) ^ 2) AS naive_mean_squared_error,
    avg((actual BETWEEN low AND high)::integer) FILTER (WHERE actual IS NOT NULL)::double precision AS coverage,
    avg(level) AS level,
    max(made_at) AS last_made_at
FROM genesis.predictions
GROUP BY kind, model_id;
COMMENT ON VIEW genesis.prediction_scores IS 'How predictions did: in seconds for latency; for probabilities, the mean '
    'squared error is the Brier score. A model no better than the naive forecast is not acted on';

CREATE OR REPLACE VIEW genesis.statement_windows AS
SELECT
    whole.id AS window_id,
    whole.started_at,
    whole.ended_at,
    whole.run,
    whole.configuration_id,
    (growth.item ->> 0)::bigint AS queryid,
    (growth.item ->> 1)::oid AS user_oid,
    (growth.item ->> 2)::oid AS database_oid,
    (growth.item ->> 3)::bigint AS calls_total,
    (growth.item ->> 4)::double precision AS execution_seconds_total,
    (growth.item ->> 5)::bigint AS rows_total,
    (growth.item ->> 6)::bigint AS shared_blocks_read_total,
    (growth.item ->> 7)::bigint AS shared_blocks_hit_total,
    (growth.item ->> 8)::bigint AS temp_blocks_written_total,
    (growth.item ->> 9)::double precision AS wal_bytes_total,
    known.statement
FROM genesis.metric_windows AS whole
CROSS JOIN LATERAL jsonb_array_elements(whole.statements) AS growth (item)
LEFT JOIN genesis.statement_texts AS known ON known.queryid = (growth.item ->> 0)::bigint;
COMMENT ON VIEW genesis.statement_windows IS 'Growth of each statement''s counters in each window, with its text';

-- Newcombe's method 10: the interval of a difference from Wilson's of each share. The unit is the occasion.
CREATE OR REPLACE VIEW genesis.prevention_savings AS
WITH tally AS (
    SELECT
        error_class,
        count(*) FILTER (WHERE choice = 'acted') AS acted,
        count(*) FILTER (WHERE choice = 'acted' AND errors > 0) AS acted_with_errors,
        count(*) FILTER (WHERE choice = 'acted' AND (errors > 0 OR undone > 0.1 * due)) AS acted_spoilt,
        count(*) FILTER (WHERE choice = 'held out') AS held_out,
        count(*) FILTER (WHERE choice = 'held out' AND errors > 0) AS held_out_with_errors,
        count(*) FILTER (WHERE choice = 'held out' AND (errors > 0 OR undone > 0.1 * due)) AS held_out_spoilt,
        100.0 * sum(undone) FILTER (WHERE choice = 'acted')
            / nullif(sum(due) FILTER (WHERE choice = 'acted'), 0) AS acted_undone_percent,
        100.0 * sum(undone) FILTER (WHERE choice = 'held out')
            / nullif(sum(due) FILTER (WHERE choice = 'held out'), 0) AS held_out_undone_percent,
        1000.0 * sum(errors) FILTER (WHERE choice = 'acted')
            / nullif(sum(operations) FILTER (WHERE choice = 'acted'), 0) AS acted_errors_per_1000,
        1000.0 * sum(errors) FILTER (WHERE choice = 'held out')
            / nullif(sum(operations) FILTER (WHERE choice = 'held out'), 0) AS held_out_errors_per_1000
    FROM genesis.preventions
    WHERE is_whole AND choice IN ('acted', 'held out')
    GROUP BY error_class
),
share AS (
    SELECT
        *,
        nullif(acted, 0)::double precision AS m,
        nullif(held_out, 0)::double precision AS n,
        acted_spoilt / nullif(acted, 0)::double precision AS p,
        held_out_spoilt / nullif(held_out, 0)::double precision AS q,
        3.841459::double precision AS z2
    FROM tally
),
wilson AS (
    SELECT
        *,
        (p + z2 / (2 * m)) / (1 + z2 / m) AS p_center,
        sqrt(z2 * p * (1 - p) / m + z2 * z2 / (4 * m * m)) / (1 + z2 / m) AS p_half,
        (q + z2 / (2 * n)) / (1 + z2 / n) AS q_center,
        sqrt(z2 * q * (1 - q) / n + z2 * z2 / (4 * n * n)) / (1 + z2 / n) AS q_half
    FROM share
),
difference AS (
    SELECT
        *,
        p - q - sqrt((p - p_center + p_half) ^ 2 + (q_center + q_half - q) ^ 2) AS low,
        p - q + sqrt((p_center + p_half - p) ^ 2 + (q - q_center + q_half) ^ 2) AS high
    FROM wilson
)
SELECT
    error_class,
    acted,
    held_out,
    round(100.0 * acted_with_errors / nullif(acted, 0), 1) AS acted_error_percent,
    round(100.0 * held_out_with_errors / nullif(held_out, 0), 1) AS held_out_error_percent,
    p - q AS difference,
    low,
    high,
    CASE
        WHEN least(acted, held_out) < 5 THEN 'not decidable yet'
        WHEN high < 0 THEN 'saved'
        WHEN low > 0 THEN 'harmed'
        ELSE 'no difference shown'
    END AS verdict,
    round(acted_errors_per_1000::numeric, 3) AS acted_errors_per_1000,
    round(held_out_errors_per_1000::numeric, 3) AS held_out_errors_per_1000,
    round((100 * p)::numeric, 1) AS acted_spoilt_percent,
    round((100 * q)::numeric, 1) AS held_out_spoilt_percent,
    round(acted_undone_percent::numeric, 1) AS acted_undone_percent,
    round(held_out_undone_percent::numeric, 1) AS held_out_undone_percent
FROM difference
ORDER BY error_class;
COMMENT ON VIEW genesis.prevention_savings
    IS 'Share of occasions with errors or with more than a tenth of the work undone, acted on less held out, with its '
    '95 % interval: below 0 is saved';
