-- What a lever leaves undone is counted too: otherwise it looks good by letting less work through.
ALTER TABLE genesis.preventions
    ADD COLUMN due bigint NOT NULL DEFAULT 0,
    ADD COLUMN undone bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN genesis.preventions.due
    IS 'Operations that were to be done in the horizon: those that came due or, where nobody knows that, as many as before; '
    '0 before version 11';
COMMENT ON COLUMN genesis.preventions.undone IS 'Of these, those that were not done: failed, skipped or still waiting; below 0, more was done than before';

-- Of servers that share a repository each has its own forests.
UPDATE genesis.forests SET server = '' WHERE server IS NULL;
ALTER TABLE genesis.forests
    DROP CONSTRAINT forests_pkey,
    ALTER COLUMN server SET DEFAULT '',
    ALTER COLUMN server SET NOT NULL,
    ADD CONSTRAINT forests_pkey PRIMARY KEY (kind, server);
COMMENT ON TABLE genesis.forests
    IS 'The forest of each kind and server that was trained last; genesis.forest_nodes unfolds it';

INSERT INTO genesis.schema_version (version, name) VALUES (11, 'prevention work');
