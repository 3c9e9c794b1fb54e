-- Unlike ALTER SYSTEM it is a row. A role of ours with synchronous_commit = off could lose it in a crash, after the
-- journal has said that it was put back; a standby that is absent must not hold it up.
SELECT /* genesis-pg */ set_config('synchronous_commit', 'local', true)
