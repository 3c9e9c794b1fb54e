INSERT INTO genesis.journal (at, server, entry)
SELECT record.at, %(server)s, record.entry
FROM ROWS FROM (
    unnest(%(ats)s::timestamptz[]),
    unnest(%(entries)s::jsonb[])
) WITH ORDINALITY AS record (at, entry, number)
WHERE NOT EXISTS (
    SELECT
    FROM genesis.journal AS there
    WHERE there.server = %(server)s AND there.at = record.at AND there.entry = record.entry
)
ORDER BY record.number
