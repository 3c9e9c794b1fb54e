-- What was done again, what nobody knows the end of, and which server a window is of, where several share a repository.
ALTER TABLE genesis.metric_windows
    ADD COLUMN server text,
    ADD COLUMN retried jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN ambiguous_total bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN genesis.metric_windows.server
    IS 'System identifier of the server that the window is of; NULL where nobody could say';
COMMENT ON COLUMN genesis.metric_windows.retried
    IS 'Attempts that failed and were followed by another one, by SQLSTATE; none before version 9';
COMMENT ON COLUMN genesis.metric_windows.ambiguous_total
    IS 'Failed operations that may have been committed all the same; 0 before version 9';

ALTER TABLE genesis.forests ADD COLUMN server text;
COMMENT ON COLUMN genesis.forests.server
    IS 'System identifier of the server whose windows it learned from; NULL where nobody could say';

-- its rows have a column more from now on
DROP FUNCTION IF EXISTS genesis.window_features(timestamptz, timestamptz);

INSERT INTO genesis.schema_version (version, name) VALUES (9, 'window origin');
