-- Trials with their pairs of blocks, and predictions with what came true of them.
CREATE TABLE genesis.trials (
    id text PRIMARY KEY,
    started_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    baseline_id text NOT NULL REFERENCES genesis.configurations,
    candidate_id text NOT NULL REFERENCES genesis.configurations,
    origin text NOT NULL,
    reason text NOT NULL,
    outcome text NOT NULL,
    ratio double precision,
    ratio_low double precision,
    ratio_high double precision,
    verdict_reason text NOT NULL,
    predicted_ratio double precision,
    predicted_low double precision,
    predicted_high double precision,
    figures jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX trials_started_at ON genesis.trials (started_at);
COMMENT ON TABLE genesis.trials IS 'Every trial: a candidate against a baseline, and the verdict';
COMMENT ON COLUMN genesis.trials.ratio IS 'Candidate over baseline; below 1 is faster';

CREATE TABLE genesis.trial_pairs (
    trial_id text NOT NULL REFERENCES genesis.trials ON DELETE CASCADE,
    number integer NOT NULL,
    baseline_seconds double precision NOT NULL,
    candidate_seconds double precision NOT NULL,
    candidate_first boolean NOT NULL,
    PRIMARY KEY (trial_id, number)
);
COMMENT ON TABLE genesis.trial_pairs IS 'The objective in each pair of neighbouring blocks of a trial';

CREATE TABLE genesis.predictions (
    kind text NOT NULL,
    model_id text NOT NULL,
    run text,
    made_at timestamptz NOT NULL,
    window_started_at timestamptz NOT NULL,
    value double precision NOT NULL,
    low double precision NOT NULL,
    high double precision NOT NULL,
    level double precision NOT NULL,
    naive_value double precision,
    actual double precision,
    scored_at timestamptz,
    configuration_id text
) PARTITION BY RANGE (made_at);
CREATE INDEX predictions_made_at ON genesis.predictions (made_at);
CREATE TABLE genesis.predictions_default PARTITION OF genesis.predictions DEFAULT;
COMMENT ON TABLE genesis.predictions IS 'What was predicted of a window, and what came true';
COMMENT ON COLUMN genesis.predictions.kind
    IS 'latency_seconds: mean response; error_probability: of any error, or error_probability:deadlock of a class';
COMMENT ON COLUMN genesis.predictions.configuration_id IS 'What the prediction supposes to be in force';
COMMENT ON COLUMN genesis.predictions.naive_value IS 'What was forecast from the window before, to compare with';
COMMENT ON COLUMN genesis.predictions.actual IS 'What happened; for a probability 1 or 0';

INSERT INTO genesis.schema_version (version, name) VALUES (4, 'trials');
