-- Partitions of a day (UTC), made ahead of time and dropped by retention. A default partition beside them takes what
-- no other does, so that inserting never fails for want of a partition; what it took moves when its day is made.
-- Operations, which user's statements write, have child tables instead: the live one gets its day's name afterwards.

CREATE OR REPLACE FUNCTION genesis.partitioned_tables()
RETURNS TABLE (table_name name, key_column name)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT parent.relname, key.attname
    FROM pg_partitioned_table AS partitioned
    JOIN pg_class AS parent ON parent.oid = partitioned.partrelid
    JOIN pg_attribute AS key ON key.attrelid = parent.oid AND key.attnum = partitioned.partattrs[0]
    WHERE parent.relnamespace = 'genesis'::regnamespace
    ORDER BY parent.relname
$$;
COMMENT ON FUNCTION genesis.partitioned_tables() IS 'Our tables that are partitioned by the day, and the column';

CREATE OR REPLACE FUNCTION genesis.expired_before()
RETURNS timestamptz
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (date_trunc('day', now() AT TIME ZONE 'UTC') - make_interval(days => retention_days)) AT TIME ZONE 'UTC'
    FROM genesis.settings
$$;
COMMENT ON FUNCTION genesis.expired_before() IS 'The first midnight (UTC) that retention keeps';

CREATE OR REPLACE FUNCTION genesis.identify(partition text, parent name)
RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- no LIKE copies it
    IF (SELECT relreplident FROM pg_class WHERE oid = format('genesis.%I', parent)::regclass) = 'f' THEN
        EXECUTE format('ALTER TABLE genesis.%I REPLICA IDENTITY FULL', partition);
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION genesis.add_partition(parent name, key_column name, day date)
RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- of a timestamp, since to_char(date) goes by way of the session's time zone, in which a day may be missing
    partition constant text := parent || to_char(day::timestamp, '"_p"YYYYMMDD');
    from_text constant text := to_char(day::timestamp, 'YYYY-MM-DD"T00:00:00Z"');
    until_text constant text := to_char((day + 1)::timestamp, 'YYYY-MM-DD"T00:00:00Z"');
    columns text;
BEGIN
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO columns
    FROM pg_attribute
    WHERE attrelid = format('genesis.%I', parent)::regclass
        AND attnum > 0 AND NOT attisdropped AND attgenerated = '';
    -- Made apart and attached, since CREATE TABLE ... PARTITION OF would lock out all who insert.
    EXECUTE format('CREATE TABLE genesis.%I (LIKE genesis.%I INCLUDING ALL)', partition, parent);
    PERFORM genesis.identify(partition, parent);
    EXECUTE format('LOCK TABLE ONLY genesis.%I IN ACCESS EXCLUSIVE MODE', parent || '_default');
    EXECUTE format(
        'WITH moved AS (DELETE FROM genesis.%1$I WHERE %2$I >= %3$L AND %2$I < %4$L RETURNING %5$s) '
        'INSERT INTO genesis.%6$I (%5$s) SELECT * FROM moved',
        parent || '_default', key_column, from_text, until_text, columns, partition);
    EXECUTE format('ALTER TABLE genesis.%I ATTACH PARTITION genesis.%I FOR VALUES FROM (%L) TO (%L)',
        parent, partition, from_text, until_text);
END
$$;

CREATE OR REPLACE FUNCTION genesis.ensure_partitions()
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '250ms'
AS $$
DECLARE
    today constant date := (now() AT TIME ZONE 'UTC')::date;
    days_ahead constant integer := (SELECT partitions_ahead FROM genesis.settings);
    missing record;
    made integer := 0;
BEGIN
    FOR missing IN
        SELECT tables.table_name, tables.key_column, today + offset_days AS day
        FROM genesis.partitioned_tables() AS tables
        CROSS JOIN generate_series(0, days_ahead) AS offset_days
        WHERE to_regclass(format('genesis.%I',
            tables.table_name || to_char((today + offset_days)::timestamp, '"_p"YYYYMMDD'))) IS NULL
        ORDER BY 1, 3
    LOOP
        IF to_regclass(format('genesis.%I', missing.table_name || '_default')) IS NULL THEN
            EXECUTE format('CREATE TABLE genesis.%I PARTITION OF genesis.%I DEFAULT',
                missing.table_name || '_default', missing.table_name);
            PERFORM genesis.identify(missing.table_name || '_default', missing.table_name);
        END IF;
        PERFORM genesis.add_partition(missing.table_name, missing.key_column, missing.day);
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;
COMMENT ON FUNCTION genesis.ensure_partitions()
    IS 'Make the partitions of today and of settings.partitions_ahead days after it; returns how many were missing';

CREATE OR REPLACE FUNCTION genesis.rotate_operations()
RETURNS boolean
-- whoever writes to a watched table waits as long as we wait here for those who wrote before
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '20ms'
AS $$
DECLARE
    today constant date := (clock_timestamp() AT TIME ZONE 'UTC')::date;
    yesterdays_name constant text := 'operations' || to_char((today - 1)::timestamp, '"_p"YYYYMMDD');
    first_at timestamptz;
BEGIN
    IF to_regclass('genesis.operations_live') IS NOT NULL THEN
        SELECT at INTO first_at FROM genesis.operations_live LIMIT 1;  -- rows lie in the order of their time
        IF first_at IS NULL OR (first_at AT TIME ZONE 'UTC')::date >= today
            OR to_regclass(format('genesis.%I', yesterdays_name)) IS NOT NULL THEN
            RETURN false;
        END IF;
        EXECUTE format('ALTER TABLE genesis.operations_live RENAME TO %I', yesterdays_name);
    END IF;
    CREATE TABLE genesis.operations_live () INHERITS (genesis.operations);
    RETURN true;
END
$$;
COMMENT ON FUNCTION genesis.rotate_operations()
    IS 'Give the live table of operations the name of yesterday, and make a new one, when a day is over';

CREATE OR REPLACE FUNCTION genesis.drop_expired_partitions()
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '250ms'
AS $$
DECLARE
    expired_before constant timestamptz := genesis.expired_before();
    expired record;
    dropped integer := 0;
BEGIN
    FOR expired IN
        SELECT child.relname
        FROM pg_class AS child
        JOIN pg_inherits AS link ON link.inhrelid = child.oid
        WHERE child.relnamespace = 'genesis'::regnamespace
            AND child.relkind = 'r'
            AND child.relname ~ '_p[0-9]{8}$'
            AND to_date(right(child.relname, 8), 'YYYYMMDD') < (expired_before AT TIME ZONE 'UTC')::date
    LOOP
        EXECUTE format('DROP TABLE genesis.%I', expired.relname);
        dropped := dropped + 1;
    END LOOP;
    FOR expired IN SELECT tables.table_name, tables.key_column FROM genesis.partitioned_tables() AS tables LOOP
        EXECUTE format('DELETE FROM genesis.%I WHERE %I < $1', expired.table_name || '_default', expired.key_column)
        USING expired_before;
    END LOOP;
    -- an occasion that was acted on or held out goes on telling what prevention saves; advice tells nothing later
    DELETE FROM genesis.preventions WHERE choice = 'advised' AND began_at < expired_before;
    RETURN dropped;
END
$$;
COMMENT ON FUNCTION genesis.drop_expired_partitions()
    IS 'Drop what is older than settings.retention_days, advice too; returns how many partitions went';

CREATE OR REPLACE FUNCTION genesis.maintain()
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    step text;
    all_done boolean := true;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('genesis-pg maintenance', 0)) THEN
        RETURN false;
    END IF;
    FOREACH step IN ARRAY ARRAY[
        'ensure_partitions', 'rotate_operations', 'drop_expired_partitions', 'forget_configurations'
    ] LOOP
        BEGIN
            EXECUTE format('SELECT genesis.%I()', step);
        EXCEPTION
            -- somebody works on these tables right now; nothing is lost by waiting for the next call
            WHEN lock_not_available THEN
                all_done := false;
                RAISE LOG 'genesis.%() found its table locked, and will try again when it is next called', step;
        END;
    END LOOP;
    RETURN all_done;
END
$$;
COMMENT ON FUNCTION genesis.maintain()
    IS 'Make and drop partitions as due; false where another session is at it, or a table was locked: call it again';

REVOKE EXECUTE ON FUNCTION
    genesis.identify(text, name),
    genesis.add_partition(name, name, date),
    genesis.rotate_operations(),
    genesis.ensure_partitions(),
    genesis.drop_expired_partitions(),
    genesis.maintain()
FROM PUBLIC;
