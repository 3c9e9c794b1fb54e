-- Which runner of which run may load these tables, and what it has committed. A seat is a session's own row, so that
-- no two wait for each other; it is updated in place (HOT), so that the table does not grow with the operations.
CREATE TABLE IF NOT EXISTS genesis_load.soaks (
    run text PRIMARY KEY,
    epoch integer NOT NULL,
    balance numeric NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE IF NOT EXISTS genesis_load.ledger (
    seat bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run text NOT NULL,
    epoch integer NOT NULL,
    committed bigint NOT NULL DEFAULT 0,
    is_folded boolean NOT NULL DEFAULT false
) WITH (fillfactor = 10);
