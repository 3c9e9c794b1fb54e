-- Hint bits, visibility map and statistics now, so that the first minutes are not spent on them.
VACUUM (FREEZE, ANALYZE) {tables}
