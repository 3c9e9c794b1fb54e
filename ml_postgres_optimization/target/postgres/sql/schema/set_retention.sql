-- How long windows, operations and predictions are kept.
UPDATE genesis.settings SET retention_days = %(days)s /* genesis-pg */
