-- Granted once, and no longer tuned.
REVOKE ALTER SYSTEM ON PARAMETER {names} FROM {tune};
