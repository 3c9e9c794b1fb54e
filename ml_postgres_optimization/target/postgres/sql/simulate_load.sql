-- Realistic load by SQL alone, and reference metrics of it in schema genesis:
--
--     psql -d shop -v rows=10000 -v operations=10000 -v seed=1 -v minutes=1440 -f simulate_load.sql
--
-- Every argument may be left out. Keys are drawn by Zipf's law, arrivals by a Poisson process whose intensity follows
-- the hour of the day, with bursts. The same seed gives the same operations on the same rows, on every version.
--
--   rows        accounts to work on; a session that joins a simulation under way works on those that are there
--   operations  how many are done
--   seed        any whole number; sessions at once need different ones
--   minutes     simulated time that they are spread over; it begins at midnight (UTC)
--   windows     reference windows that this time is cut into (24)
--   pace        fast: without waiting, and the windows lie in the past; real: sleeps until each is due
--
-- Works in schemas genesis_simulation, for its own tables, and genesis, made where they are missing. Commits after
-- every operation, so it must not run inside of a transaction (psql -1).
\set ON_ERROR_STOP on
\if :{?rows}
\else
    \set rows 10000
\endif
\if :{?operations}
\else
    \set operations 10000
\endif
\if :{?seed}
\else
    \set seed 1
\endif
\if :{?minutes}
\else
    \set minutes 1440
\endif
\if :{?windows}
\else
    \set windows 24
\endif
\if :{?pace}
\else
    \set pace fast
\endif

\ir setup_db.sql

\set genesis_quiet :QUIET
\set QUIET on
BEGIN;
\ir simulation/tables.sql
\ir simulation/schedule.sql
\ir simulation/run.sql
COMMIT;
\set QUIET :genesis_quiet

CALL genesis_simulation.run(
    rows => :'rows', operations => :'operations', seed => :'seed', minutes => :'minutes', windows => :'windows',
    pace => :'pace'
);
