-- Makes or upgrades schema genesis in the database that psql is connected to:
--
--     psql -d shop -f setup_db.sql
--
-- All or nothing, in one transaction; running it again changes nothing. The owner of the database may run it; what a
-- role that is no superuser loses is said by NOTICE. `genesis-pg setup` applies the same files by the same rules.
\set ON_ERROR_STOP on
\set genesis_quiet :QUIET
\set QUIET on
BEGIN;
SELECT set_config('genesis.known_version', '12', true) AS genesis_known_version \gset
\ir schema/guard.sql

SELECT to_regclass('genesis.schema_version') IS NOT NULL AS genesis_installed \gset
\set genesis_version 0
\if :genesis_installed
    SELECT max(version) AS genesis_version FROM genesis.schema_version \gset
\endif
SELECT
    :genesis_version < 1 AS genesis_lacks_1,
    :genesis_version < 2 AS genesis_lacks_2,
    :genesis_version < 3 AS genesis_lacks_3,
    :genesis_version < 4 AS genesis_lacks_4,
    :genesis_version < 5 AS genesis_lacks_5,
    :genesis_version < 6 AS genesis_lacks_6,
    :genesis_version < 7 AS genesis_lacks_7,
    :genesis_version < 8 AS genesis_lacks_8,
    :genesis_version < 9 AS genesis_lacks_9,
    :genesis_version < 10 AS genesis_lacks_10,
    :genesis_version < 11 AS genesis_lacks_11,
    :genesis_version < 12 AS genesis_lacks_12
\gset
\if :genesis_lacks_1
    \ir schema/0001_foundation.sql
\endif
\if :genesis_lacks_2
    \ir schema/0002_windows.sql
\endif
\if :genesis_lacks_3
    \ir schema/0003_operations.sql
\endif
\if :genesis_lacks_4
    \ir schema/0004_trials.sql
\endif
\if :genesis_lacks_5
    \ir schema/0005_trial_designs.sql
\endif
\if :genesis_lacks_6
    \ir schema/0006_trial_parts.sql
\endif
\if :genesis_lacks_7
    \ir schema/0007_configuration_history.sql
\endif
\if :genesis_lacks_8
    \ir schema/0008_forests.sql
\endif
\if :genesis_lacks_9
    \ir schema/0009_window_origin.sql
\endif
\if :genesis_lacks_10
    \ir schema/0010_prevention.sql
\endif
\if :genesis_lacks_11
    \ir schema/0011_prevention_work.sql
\endif
\if :genesis_lacks_12
    \ir schema/0012_replica_identity.sql
\endif

\ir schema/repeatable/1_partitions.sql
\ir schema/repeatable/2_histograms.sql
\ir schema/repeatable/3_recording.sql
\ir schema/repeatable/4_watching.sql
\ir schema/repeatable/5_predictions.sql
\ir schema/repeatable/6_views.sql
\ir schema/repeatable/7_history.sql
\ir schema/repeatable/8_features.sql
\ir schema/repeatable/9_forests.sql
\ir schema/finish.sql
COMMIT;
\set QUIET :genesis_quiet
