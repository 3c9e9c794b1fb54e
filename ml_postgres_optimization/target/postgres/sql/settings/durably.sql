-- Unlike ALTER SYSTEM it is a row: a role of ours with synchronous_commit = off could lose it in a crash, after the
-- journal has said that it was put back.
SELECT /* genesis-pg */ set_config('synchronous_commit', 'on', true)
