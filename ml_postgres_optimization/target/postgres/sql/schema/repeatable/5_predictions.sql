-- What came true of the predictions.

CREATE OR REPLACE FUNCTION genesis.score_predictions()
RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    scored bigint;
BEGIN
    UPDATE genesis.predictions AS prediction
    SET actual = happened.actual, scored_at = clock_timestamp()
    FROM (
        SELECT
            open.tableoid, open.ctid,
            CASE
                WHEN open.kind = 'latency_seconds'
                    THEN coalesce(window_after.mean_response_seconds, window_after.mean_statement_seconds)
                WHEN open.kind = 'error_probability' THEN (window_after.failed_total > 0)::integer
                WHEN open.kind LIKE 'error_probability:%' THEN (
                    split_part(open.kind, ':', 2) = ANY (
                        CASE WHEN window_after.failed_total = 0 THEN '{}' ELSE window_after.error_classes END))::integer
            END AS actual
        FROM genesis.predictions AS open
        -- the window that began when the predicted one should have: clocks and scheduling shift it a little
        CROSS JOIN LATERAL (
            SELECT * FROM genesis.metric_windows AS near
            WHERE near.started_at BETWEEN open.window_started_at - interval '10 minutes'
                    AND open.window_started_at + interval '10 minutes'
                AND (open.run IS NULL OR near.run = open.run)
                AND (open.configuration_id IS NULL OR near.configuration_id = open.configuration_id)
                AND abs(date_part('epoch', near.started_at - open.window_started_at))
                    < date_part('epoch', near.ended_at - near.started_at) / 2
            ORDER BY abs(date_part('epoch', near.started_at - open.window_started_at))
            LIMIT 1
        ) AS window_after
        WHERE open.scored_at IS NULL
    ) AS happened
    WHERE prediction.tableoid = happened.tableoid AND prediction.ctid = happened.ctid
        AND happened.actual IS NOT NULL;
    GET DIAGNOSTICS scored = ROW_COUNT;
    RETURN scored;
END
$$;
COMMENT ON FUNCTION genesis.score_predictions()
    IS 'Write what happened beside each prediction whose window is there; returns how many';
