-- To see the sessions, statements and settings of everybody.
GRANT pg_monitor TO {observe};
