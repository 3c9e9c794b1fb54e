-- The number that initdb gave to this cluster, the same on its standbys.
SELECT /* genesis-pg */ system_identifier::text FROM pg_control_system()
