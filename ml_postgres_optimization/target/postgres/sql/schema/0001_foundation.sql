-- The schema, its version, its settings, and what is known of configurations, statements and the journal.
CREATE SCHEMA IF NOT EXISTS genesis;
COMMENT ON SCHEMA genesis IS 'genesis-pg: metrics, trials and predictions; made by its setup, dropped by its uninstall';

CREATE TABLE genesis.schema_version (
    version integer PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE genesis.schema_version IS 'Upgrades applied; the highest version is that of the schema';

CREATE TABLE genesis.settings (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    retention_days integer NOT NULL DEFAULT 30 CHECK (retention_days BETWEEN 1 AND 36500),
    partitions_ahead integer NOT NULL DEFAULT 3 CHECK (partitions_ahead BETWEEN 0 AND 366)
);
COMMENT ON TABLE genesis.settings IS 'One row: UPDATE genesis.settings SET retention_days = 90';
COMMENT ON COLUMN genesis.settings.retention_days IS 'Days that windows, operations and predictions are kept';
COMMENT ON COLUMN genesis.settings.partitions_ahead IS 'Days for which partitions are made ahead of time';
INSERT INTO genesis.settings DEFAULT VALUES;

CREATE TABLE genesis.configurations (
    id text PRIMARY KEY,
    values jsonb NOT NULL,
    origin text NOT NULL,
    first_seen timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE genesis.configurations IS 'Every configuration met: knob values in the units of pg_settings';

CREATE TABLE genesis.statement_texts (
    queryid bigint PRIMARY KEY,
    statement text NOT NULL,
    first_seen timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE genesis.statement_texts IS 'Normalised texts of pg_stat_statements, each stored once';

CREATE TABLE genesis.journal (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL,
    server text NOT NULL,
    entry jsonb NOT NULL
);
COMMENT ON TABLE genesis.journal IS 'Mirror of the journals on disk, by system identifier of the tuned server';
CREATE INDEX journal_server_at ON genesis.journal (server, at);

INSERT INTO genesis.schema_version (version, name) VALUES (1, 'foundation');
