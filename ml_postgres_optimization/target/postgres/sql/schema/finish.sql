-- Makes the first partitions, and says what stands and what this role loses. Last in the transaction of every setup.
DO $finish$
DECLARE
    lost text;
BEGIN
    -- not ensure_partitions() itself: somebody may be reading, or at the same work
    PERFORM genesis.maintain();
    RAISE NOTICE 'schema genesis of database % is at version %',
        current_database(), (SELECT max(version) FROM genesis.schema_version);
    FOR lost IN SELECT genesis.limitations() LOOP
        RAISE NOTICE 'lost without it: %', lost;
    END LOOP;
END
$finish$;
