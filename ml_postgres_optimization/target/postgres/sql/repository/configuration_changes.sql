SELECT at, name, old, new, brought_by, trial_id, not_before
FROM genesis.configuration_changes
WHERE server = %(server)s
ORDER BY at DESC, name
LIMIT %(last)s
