-- Every period of a server that lasted at that moment or began after it, the oldest first.
SELECT
    name,
    value,
    unit,
    lower(sys_period) AS since,
    upper(sys_period) AS until,
    not_before,
    brought_by,
    trial_id
FROM genesis.configuration_history
WHERE server = %(server)s AND (upper_inf(sys_period) OR upper(sys_period) > %(at)s)
ORDER BY lower(sys_period), name
