-- A server that publishes all its tables refuses UPDATE and DELETE of those that have no identity. These have no key.
ALTER TABLE genesis.configuration_history REPLICA IDENTITY FULL;

DO $identity$
DECLARE
    part regclass;
BEGIN
    FOR part IN SELECT relid FROM pg_partition_tree('genesis.predictions') LOOP
        EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', part);
    END LOOP;
END
$identity$;

INSERT INTO genesis.schema_version (version, name) VALUES (12, 'replica identity');
