-- What this database itself says of default_transaction_read_only; no row where it says nothing.
SELECT substr(entry, strpos(entry, '=') + 1)
FROM pg_db_role_setting
CROSS JOIN unnest(setconfig) AS entry
WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND setrole = 0
    AND entry LIKE 'default_transaction_read_only=%%'
