-- pgbench's own tables (PostgreSQL manual, pgbench, "Initialization"), in a schema of ours.
CREATE SCHEMA genesis_tpcb;

CREATE TABLE genesis_tpcb.pgbench_history (
    tid integer,
    bid integer,
    aid integer,
    delta integer,
    mtime timestamp,
    filler character(22)
);

CREATE TABLE genesis_tpcb.pgbench_tellers (
    tid integer NOT NULL,
    bid integer,
    tbalance integer,
    filler character(84)
);

CREATE TABLE genesis_tpcb.pgbench_accounts (
    aid integer NOT NULL,
    bid integer,
    abalance integer,
    filler character(84)
);

CREATE TABLE genesis_tpcb.pgbench_branches (
    bid integer NOT NULL,
    bbalance integer,
    filler character(88)
);
