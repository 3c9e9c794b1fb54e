-- Does what the schedule says, one transaction an operation, and stores a reference window at the end of each.

CREATE OR REPLACE FUNCTION genesis_simulation.prepare(
    rows integer, seed bigint, OUT items integer, OUT is_alone boolean)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    everybody constant bigint := hashtextextended('genesis-pg simulation', 0);
BEGIN
    IF NOT pg_try_advisory_lock(hashtextextended('genesis-pg simulation ' || seed, 0)) THEN
        RAISE EXCEPTION 'a simulation with seed % is under way in another session', seed
            USING ERRCODE = 'object_in_use', HINT = 'Give this one another seed.';
    END IF;
    -- whoever is alone begins with fresh tables; whoever comes while others run works on theirs
    is_alone := pg_try_advisory_lock(everybody);
    IF is_alone THEN
        TRUNCATE genesis_simulation.accounts, genesis_simulation.events, genesis_simulation.schedule;
        INSERT INTO genesis_simulation.accounts SELECT id, 1000000, 0 FROM generate_series(1, rows) AS id;
    ELSE
        PERFORM pg_advisory_lock_shared(everybody);
    END IF;
    SELECT count(*) INTO items FROM genesis_simulation.accounts;
END
$$;

CREATE OR REPLACE PROCEDURE genesis_simulation.do_operation(operation genesis_simulation.schedule, INOUT failure text)
LANGUAGE plpgsql
AS $$
BEGIN
    failure := NULL;
    CASE operation.kind
        WHEN 'read' THEN
            PERFORM accounts.balance FROM genesis_simulation.accounts WHERE accounts.id = operation.account_id;
        WHEN 'write' THEN
            INSERT INTO genesis_simulation.events (seed, number, account_id, amount)
            VALUES (operation.seed, operation.number, operation.account_id, operation.amount);
        WHEN 'update' THEN
            UPDATE genesis_simulation.accounts
            SET balance = accounts.balance + operation.amount, changes = accounts.changes + 1
            WHERE accounts.id = operation.account_id;
        WHEN 'transaction' THEN
            -- always in the order of the keys, so that two sessions cannot wait for each other
            PERFORM FROM genesis_simulation.accounts
            WHERE accounts.id IN (operation.account_id, operation.other_id) ORDER BY accounts.id FOR UPDATE;
            UPDATE genesis_simulation.accounts
            SET balance = accounts.balance - operation.amount WHERE accounts.id = operation.account_id;
            UPDATE genesis_simulation.accounts
            SET balance = accounts.balance + operation.amount WHERE accounts.id = operation.other_id;
            INSERT INTO genesis_simulation.events (seed, number, account_id, amount)
            VALUES (operation.seed, operation.number, operation.account_id, operation.amount);
        WHEN 'delete' THEN
            DELETE FROM genesis_simulation.events
            WHERE events.seed = operation.seed AND events.number BETWEEN operation.number - 10 AND operation.number;
    END CASE;
EXCEPTION
    WHEN OTHERS THEN
        failure := SQLSTATE;
END
$$;

CREATE OR REPLACE FUNCTION genesis_simulation.store_window(
    from_time timestamptz, until_time timestamptz, configuration_id text, labels jsonb,
    kinds text[], responses double precision[], services double precision[], failures text[])
RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
    WITH operation AS (
        SELECT * FROM unnest(kinds, responses, services, failures) AS done (kind, response, service, failure)
    ),
    part AS (
        SELECT
            kind,
            count(*) AS operations_total,
            count(failure) AS failed_total,
            avg(response) AS mean_response_seconds,
            avg(service) AS mean_service_seconds,
            genesis.histogram_of(array_agg(response)) AS response,
            genesis.histogram_of(array_agg(service)) AS service
        FROM operation
        GROUP BY kind
    ),
    whole AS (
        INSERT INTO genesis.metric_windows (
            started_at, ended_at, configuration_id, server, labels, operations_total, failed_total,
            throughput_per_second, mean_response_seconds, mean_service_seconds, p50_response_seconds, p95_response_seconds,
            p99_response_seconds, p999_response_seconds, errors)
        SELECT
            from_time,
            until_time,
            configuration_id,
            genesis.own_server(),
            labels,
            coalesce(sum(operations_total), 0),
            coalesce(sum(failed_total), 0),
            coalesce(sum(operations_total - failed_total), 0) / date_part('epoch', until_time - from_time),
            sum(mean_response_seconds * operations_total) / sum(operations_total),
            sum(mean_service_seconds * operations_total) / sum(operations_total),
            genesis.quantile_seconds(array_agg(response), 0.5),
            genesis.quantile_seconds(array_agg(response), 0.95),
            genesis.quantile_seconds(array_agg(response), 0.99),
            genesis.quantile_seconds(array_agg(response), 0.999),
            (
                SELECT coalesce(jsonb_object_agg(failure, count), '{}')
                FROM (SELECT failure, count(*) FROM operation WHERE failure IS NOT NULL GROUP BY failure) AS failed
            )
        FROM part
        RETURNING id, started_at
    )
    INSERT INTO genesis.operation_windows (
        window_id, started_at, kind, operations_total, failed_total, mean_response_seconds, p50_response_seconds,
        p95_response_seconds, p99_response_seconds, mean_service_seconds, response, service)
    SELECT
        whole.id,
        whole.started_at,
        part.kind,
        part.operations_total,
        part.failed_total,
        part.mean_response_seconds,
        genesis.quantile_seconds(ARRAY[part.response], 0.5),
        genesis.quantile_seconds(ARRAY[part.response], 0.95),
        genesis.quantile_seconds(ARRAY[part.response], 0.99),
        part.mean_service_seconds,
        part.response,
        part.service
    FROM whole
    CROSS JOIN part
$$;

CREATE OR REPLACE FUNCTION genesis_simulation.check_arguments(
    rows integer, operations integer, minutes integer, windows integer, pace text)
RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    refused constant text := CASE
        WHEN rows NOT BETWEEN 10 AND 100000000 THEN format('rows is %s, and must be from 10 to 100000000', rows)
        WHEN operations NOT BETWEEN 1 AND 100000000
            THEN format('operations is %s, and must be from 1 to 100000000', operations)
        WHEN minutes NOT BETWEEN 1 AND 43200 THEN format('minutes is %s, and must be from 1 to 43200', minutes)
        WHEN windows NOT BETWEEN 1 AND minutes * 60
            THEN format('windows is %s, and must be from 1 to %s, one a second', windows, minutes * 60)
        WHEN pace NOT IN ('fast', 'real') THEN format('pace is %L, and must be fast or real', pace)
    END;
BEGIN
    IF refused IS NOT NULL THEN
        RAISE EXCEPTION '%', refused
            USING ERRCODE = 'invalid_parameter_value', HINT = 'See the head of simulate_load.sql.';
    END IF;
END
$$;

CREATE OR REPLACE PROCEDURE genesis_simulation.run(
    rows integer DEFAULT 10000,
    operations integer DEFAULT 10000,
    seed bigint DEFAULT 1,
    minutes integer DEFAULT 1440,
    windows integer DEFAULT 24,
    pace text DEFAULT 'fast',
    labels jsonb DEFAULT '{}')
LANGUAGE plpgsql
AS $$
DECLARE
    window_seconds constant double precision := 60.0 * minutes / nullif(windows, 0);
    everybody constant bigint := hashtextextended('genesis-pg simulation', 0);
    all_labels constant jsonb := jsonb_build_object(
        'run', format('simulation-%s-%s', seed, to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD"T"HH24MISS')),
        'phase', 'reference', 'level', 'simulated', 'clock', pace) || labels;
    items integer;
    is_alone boolean;
    configuration_id text;
    began timestamptz;
    operation genesis_simulation.schedule;
    free_at double precision := 0;  -- seconds into the simulation when the last operation was done
    sent timestamptz;
    waited double precision;
    service double precision;
    failure text;
    kinds text[];
    responses double precision[];
    services double precision[];
    failures text[];
    done integer := 0;
BEGIN
    PERFORM genesis_simulation.check_arguments(rows, operations, minutes, windows, pace);
    SELECT prepared.items, prepared.is_alone INTO items, is_alone
    FROM genesis_simulation.prepare(rows, seed) AS prepared;
    PERFORM genesis_simulation.make_schedule(seed, operations, minutes, items), genesis.maintain();
    configuration_id := genesis.configuration_in_force();
    began := CASE pace WHEN 'real' THEN clock_timestamp() ELSE
        (date_trunc('day', now() AT TIME ZONE 'UTC') - make_interval(days => ceil(minutes / 1440.0)::integer))
            AT TIME ZONE 'UTC' END;
    COMMIT;
    IF is_alone THEN  -- no longer: others may join from here on
        PERFORM pg_advisory_lock_shared(everybody), pg_advisory_unlock(everybody);
    END IF;
    RAISE NOTICE 'simulating % operations over % minutes on % accounts, seed %', operations, minutes, items, seed;

    FOR window_number IN 1..windows LOOP
        kinds := '{}';
        responses := '{}';
        services := '{}';
        failures := '{}';
        FOR operation IN
            SELECT * FROM genesis_simulation.schedule AS due
            WHERE due.seed = run.seed AND due.number > done
                AND (due.due_seconds < window_number * window_seconds OR window_number = windows)
            ORDER BY due.number
        LOOP
            IF pace = 'real' THEN
                PERFORM pg_sleep(operation.due_seconds - date_part('epoch', clock_timestamp() - began));
            END IF;
            sent := clock_timestamp();
            CALL genesis_simulation.do_operation(operation, failure);
            COMMIT;
            service := date_part('epoch', clock_timestamp() - sent);
            -- one client: what is due while it is busy waits, and the wait is part of the response
            waited := greatest(free_at - operation.due_seconds, 0);
            free_at := operation.due_seconds + waited + service;
            kinds := array_append(kinds, operation.kind);
            responses := array_append(responses, waited + service);
            services := array_append(services, service);
            failures := array_append(failures, failure);
            done := operation.number;
        END LOOP;
        PERFORM genesis_simulation.store_window(
            began + make_interval(secs => (window_number - 1) * window_seconds),
            began + make_interval(secs => window_number * window_seconds),
            configuration_id, all_labels, kinds, responses, services, failures);
        COMMIT;
        RAISE NOTICE '% %%: % of % operations, window % of %', round(100.0 * done / operations), done, operations,
            window_number, windows;
    END LOOP;
    PERFORM pg_advisory_unlock_shared(everybody),
        pg_advisory_unlock(hashtextextended('genesis-pg simulation ' || seed, 0));
END
$$;
COMMENT ON PROCEDURE genesis_simulation.run(integer, integer, bigint, integer, integer, text, jsonb)
    IS 'What simulate_load.sql does; its arguments are explained there';
