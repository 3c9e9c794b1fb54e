-- Everybody may read the control file, unless that was revoked.
SELECT /* genesis-pg */ has_function_privilege('pg_control_system()', 'EXECUTE') AS visible
