-- How the arms of a trial lay to each other.
ALTER TABLE genesis.trials ADD COLUMN design text NOT NULL DEFAULT 'switchback';
COMMENT ON COLUMN genesis.trials.design IS 'switchback: the arms in turn; concurrent: both at once, in sessions of ours';

INSERT INTO genesis.schema_version (version, name) VALUES (5, 'trial designs');
