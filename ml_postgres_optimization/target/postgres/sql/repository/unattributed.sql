-- How many windows nobody can attribute: of an unknown server, where another one is known that they could be of.
SELECT /* genesis-pg */ count(*) AS windows
FROM genesis.metric_windows
WHERE server IS NULL AND EXISTS (SELECT FROM genesis.observed_servers AS other WHERE other.server <> %(server)s)
