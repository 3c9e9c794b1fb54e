-- What a lever leaves undone is counted too: otherwise it looks good by letting less work through.
ALTER TABLE genesis.preventions
    ADD COLUMN due bigint NOT NULL DEFAULT 0,
    ADD COLUMN undone bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN genesis.preventions.due
    IS 'Operations that were to be done in the horizon: those that came due or, where nobody knows that, as many as before; '
    '0 before version 11';
COMMENT ON COLUMN genesis.preventions.undone IS 'Of these, those that were not done: failed, skipped or still waiting; below 0, more was done than before';

INSERT INTO genesis.schema_version (version, name) VALUES (11, 'prevention work');
