-- Windows with all that is in them, oldest first.
SELECT /* genesis-pg */
    whole.started_at,
    whole.ended_at,
    whole.configuration_id,
    whole.labels,
    whole.rates,
    whole.gauges,
    whole.waits,
    whole.errors,
    whole.skipped_total,
    whole.statements,
    whole.unseen,
    to_jsonb(whole.lag) AS lag,
    (
        SELECT jsonb_object_agg(
            part.kind,
            jsonb_build_object(
                'response', part.response, 'service', part.service, 'failed_total', part.failed_total
            )
        )
        FROM genesis.operation_windows AS part
        WHERE part.started_at = whole.started_at AND part.window_id = whole.id
    ) AS operations
FROM (
    SELECT *
    FROM genesis.metric_windows
    WHERE (%(since)s::timestamptz IS NULL OR ended_at > %(since)s)
        AND (%(run)s::text IS NULL OR run = %(run)s)
    ORDER BY started_at DESC, id DESC
    LIMIT %(last)s
) AS whole
ORDER BY whole.started_at, whole.id
