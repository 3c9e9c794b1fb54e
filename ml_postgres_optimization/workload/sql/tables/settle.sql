-- Hint bits, visibility map and statistics now, so that the first minutes are not spent on them.
VACUUM (FREEZE, ANALYZE) genesis_load.accounts, genesis_load.operations, genesis_load.event_log
