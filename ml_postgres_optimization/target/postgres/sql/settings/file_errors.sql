-- What a reload would stumble over now, our own parameters first. A parameter that needs a restart is no error. Where no
-- line at all is applied, the whole configuration would be ignored: a syntax error, or a parameter that nobody knows.
SELECT /* genesis-pg */ file.sourcefile, file.sourceline, file.name, file.error
FROM pg_file_settings AS file
LEFT JOIN pg_settings AS live ON live.name = lower(file.name)
WHERE file.error IS NOT NULL
    AND live.context IS DISTINCT FROM 'postmaster'
    AND (
        lower(file.name) = ANY (%(names)s)
        OR NOT EXISTS (SELECT FROM pg_file_settings WHERE applied)
    )
ORDER BY coalesce(lower(file.name) = ANY (%(names)s), false) DESC, seqno
LIMIT 1
