-- Every period of a server that was proven to be wanted, or lasts, and that lasted at that moment or began after it, the
-- oldest first. What a run that was killed left on trial was in force, but nobody has promoted it: the value from before
-- stands for it until the next proven one.
WITH period AS (
    SELECT
        name,
        value,
        unit,
        sys_period,
        not_before,
        brought_by,
        trial_id,
        brought_by NOT IN ('trial', 'rollback') OR EXISTS (
            SELECT
            FROM genesis.journal AS promotion
            WHERE promotion.server = history.server
                AND promotion.entry ->> 'trial' = history.trial_id
                AND promotion.entry ->> 'kind' = 'confirmed'
        ) AS is_proven
    FROM genesis.configuration_history AS history
    WHERE server = %(server)s
),

course AS (
    SELECT
        period.*,
        min(lower(sys_period)) FILTER (WHERE is_proven) OVER (
            PARTITION BY name ORDER BY lower(sys_period) ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING
        ) AS until
    FROM period
)

SELECT
    name,
    value,
    unit,
    lower(sys_period) AS since,
    until,
    not_before,
    brought_by,
    trial_id
FROM course
WHERE (until IS NULL OR until > %(at)s) AND (is_proven OR upper_inf(sys_period))
ORDER BY lower(sys_period), name
