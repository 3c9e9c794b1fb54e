-- What a candidate made slower, though the whole may have become faster.
ALTER TABLE genesis.trials ADD COLUMN slower_parts jsonb NOT NULL DEFAULT '[]';
COMMENT ON COLUMN genesis.trials.slower_parts
    IS 'Kinds of operations, or queries, proven slower: [{part, share, ratio, ratio_low, ratio_high}]';

INSERT INTO genesis.schema_version (version, name) VALUES (6, 'trial parts');
