-- What was in force when, setting by setting: a temporal table by the convention of the extension temporal_tables
-- (sys_period, half-open, without an end while it lasts), which is not needed. docs/decisions/0022-configuration-history.md
ALTER TABLE genesis.settings ADD COLUMN history_days integer NOT NULL DEFAULT 1095
    CHECK (history_days BETWEEN 1 AND 36500);
COMMENT ON COLUMN genesis.settings.history_days IS 'Days that periods of configuration_history are kept after their end';

-- with ranges of names, an exclusion constraint can say "of the same setting" without btree_gist
CREATE TYPE genesis.text_range AS RANGE (subtype = text, collation = "C");

CREATE TABLE genesis.observed_servers (
    server text PRIMARY KEY,
    known_since timestamptz NOT NULL,
    observed_at timestamptz NOT NULL,
    journal_number bigint NOT NULL
);
COMMENT ON TABLE genesis.observed_servers IS 'Servers whose configuration is recorded, by system identifier';
COMMENT ON COLUMN genesis.observed_servers.known_since IS 'From here on configuration_history is whole';
COMMENT ON COLUMN genesis.observed_servers.observed_at IS 'When somebody looked last; what came after is not known yet';
COMMENT ON COLUMN genesis.observed_servers.journal_number IS 'The last record of genesis.journal that was considered';

CREATE TABLE genesis.configuration_history (
    server text NOT NULL REFERENCES genesis.observed_servers,
    name text NOT NULL,
    value text NOT NULL,
    unit text,
    sys_period tstzrange NOT NULL,
    not_before timestamptz NOT NULL,
    brought_by text NOT NULL CHECK (brought_by IN ('first seen', 'trial', 'rollback', 'undo', 'somebody else')),
    trial_id text,
    CHECK (NOT isempty(sys_period) AND NOT lower_inf(sys_period) AND lower_inc(sys_period) AND NOT upper_inc(sys_period)),
    CHECK (not_before <= lower(sys_period)),
    CONSTRAINT configuration_history_periods EXCLUDE USING gist (
        genesis.text_range(server, server, '[]') WITH &&,
        genesis.text_range(name, name, '[]') WITH &&,
        sys_period WITH &&
    )
);
CREATE UNIQUE INDEX configuration_history_in_force ON genesis.configuration_history (server, name)
WHERE upper_inf(sys_period);
COMMENT ON TABLE genesis.configuration_history IS 'Which value each setting of a server had, in which period, and who brought it';
COMMENT ON COLUMN genesis.configuration_history.value IS 'In the unit of pg_settings; genesis.setting_text(value, unit) is for people';
COMMENT ON COLUMN genesis.configuration_history.sys_period IS 'By the clock of the server; without an end while it lasts';
COMMENT ON COLUMN genesis.configuration_history.not_before
    IS 'The change came after this and not after lower(sys_period); the two are the same where it is known exactly';
COMMENT ON COLUMN genesis.configuration_history.trial_id IS 'In genesis.journal, and where it had a verdict in genesis.trials';

CREATE INDEX journal_trial ON genesis.journal (server, (entry ->> 'trial'));

INSERT INTO genesis.schema_version (version, name) VALUES (7, 'configuration history');
