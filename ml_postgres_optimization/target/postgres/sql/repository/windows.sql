-- Windows with all that is in them, oldest first. Of one server: those that are known to be its own; and those of which
-- nobody said, where no other server is known that they could be of.
SELECT /* genesis-pg */
    whole.started_at,
    whole.ended_at,
    whole.configuration_id,
    whole.server,
    whole.labels,
    whole.rates,
    whole.gauges,
    whole.waits,
    whole.errors,
    whole.skipped_total,
    whole.retried,
    whole.ambiguous_total,
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
        AND (
            %(server)s::text IS NULL
            OR server = %(server)s
            OR server IS NULL
                AND NOT EXISTS (SELECT FROM genesis.observed_servers AS other WHERE other.server <> %(server)s)
        )
    ORDER BY started_at DESC, id DESC
    LIMIT %(last)s
) AS whole
ORDER BY whole.started_at, whole.id
