-- Dangers that were foretold, what was done about each, and what happened then.
CREATE TABLE genesis.preventions (
    id text PRIMARY KEY,
    run text,
    began_at timestamptz NOT NULL,
    ended_at timestamptz,
    error_class text NOT NULL,
    probability double precision NOT NULL CHECK (probability BETWEEN 0 AND 1),
    low double precision NOT NULL,
    high double precision NOT NULL,
    level double precision NOT NULL,
    threshold double precision NOT NULL,
    source text NOT NULL,
    choice text NOT NULL CHECK (choice IN ('acted', 'held out', 'advised')),
    lever text NOT NULL,
    deed text NOT NULL,
    ending text NOT NULL DEFAULT '',
    before_id text NOT NULL REFERENCES genesis.configurations,
    after_id text REFERENCES genesis.configurations,
    windows integer NOT NULL DEFAULT 0,
    operations bigint NOT NULL DEFAULT 0,
    errors bigint NOT NULL DEFAULT 0,
    response_seconds double precision NOT NULL DEFAULT 0,
    is_whole boolean NOT NULL DEFAULT false
);
CREATE INDEX preventions_began_at ON genesis.preventions (began_at);
COMMENT ON TABLE genesis.preventions
    IS 'Dangers that rose: what was foretold, what was done or held out at random or advised, and what happened then';
COMMENT ON COLUMN genesis.preventions.probability IS 'That an error of the class comes in the next window, with low and high';
COMMENT ON COLUMN genesis.preventions.threshold IS 'Probability from which on acting is worth its cost';
COMMENT ON COLUMN genesis.preventions.source IS 'Identifier of the forest that foretold it; symptom where its cause was seen';
COMMENT ON COLUMN genesis.preventions.choice IS 'One in five that could be acted on is held out at random, to compare with';
COMMENT ON COLUMN genesis.preventions.after_id IS 'In force by the lever, or what it would have been; NULL where none was involved';
COMMENT ON COLUMN genesis.preventions.errors
    IS 'Of the class, in the windows of the horizon; operations and the sum of their response times likewise';
COMMENT ON COLUMN genesis.preventions.is_whole IS 'Whether the horizon was seen to its end; only then it counts';

INSERT INTO genesis.schema_version (version, name) VALUES (10, 'prevention');
