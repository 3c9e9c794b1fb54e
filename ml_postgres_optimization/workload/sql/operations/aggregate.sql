SELECT kind, count(*), sum(amount), avg(amount), max(at)
FROM genesis_load.operations
WHERE account_id BETWEEN $1 AND $1 + 999
GROUP BY kind
ORDER BY kind
