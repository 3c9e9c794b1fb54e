-- Until the end of the transaction: a role that ours is set to (ALTER ROLE ... SET role) may not see or end our sessions.
SET LOCAL ROLE NONE /* genesis-pg */
