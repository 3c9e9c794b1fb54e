SELECT id, configurations.values
FROM genesis.configurations
WHERE %(id)s::text IS NULL OR id = %(id)s
ORDER BY first_seen, id
