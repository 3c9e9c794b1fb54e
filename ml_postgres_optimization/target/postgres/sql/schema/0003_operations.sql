-- Operations on watched tables, one row a statement. The user's statement pays for every row, so there is no index, and
-- no routing to a partition either: rows go into operations_live, a child table by inheritance, which gets its day's
-- name when the day is over. docs/decisions/0014-watched-tables.md
CREATE TABLE genesis.operations (
    at timestamptz NOT NULL,
    statement_started_at timestamptz NOT NULL,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    operation text NOT NULL,
    rows bigint,
    role_name text NOT NULL
);
CREATE TABLE genesis.operations_live () INHERITS (genesis.operations);

COMMENT ON TABLE genesis.operations IS 'Statements on watched tables; rolled-back ones leave nothing here';
COMMENT ON COLUMN genesis.operations.at IS 'Clock time at the end of the statement';
COMMENT ON COLUMN genesis.operations.statement_started_at
    IS 'When the client''s command arrived; of a function or script, when the whole of it did';
COMMENT ON COLUMN genesis.operations.operation IS 'INSERT, UPDATE, DELETE or TRUNCATE';
COMMENT ON COLUMN genesis.operations.rows IS 'Rows affected; NULL for TRUNCATE, which does not count them';
COMMENT ON COLUMN genesis.operations.role_name IS 'session_user';

INSERT INTO genesis.schema_version (version, name) VALUES (3, 'operations');
