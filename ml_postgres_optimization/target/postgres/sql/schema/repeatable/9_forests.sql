-- Predictions of the stored forests, equal to those of models.latency_forest and models.error_forest. Few rows walk
-- the trees one by one. For many, the trees are written out as nested CASE expressions, which the executor walks
-- ten times faster than PL/pgSQL does: docs/decisions/0031-forests-in-the-database.md

CREATE OR REPLACE FUNCTION genesis.feature_value(name text, given jsonb)
RETURNS double precision
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    exact numeric;
    wide double precision;
BEGIN
    IF coalesce(jsonb_typeof(given), 'null') = 'null'
        OR jsonb_typeof(given) = 'string' AND lower(given #>> '{}') ~ '^[-+]?(nan|inf|infinity)$' THEN
        RETURN NULL;
    ELSIF jsonb_typeof(given) <> 'number' THEN
        RAISE EXCEPTION 'feature % is a JSON %, and must be a number', name, jsonb_typeof(given)
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave it out, or give null, where it was not seen.';
    END IF;
    -- to 32 bits, by way of 64, as Python does; the casts of the server fail where those of Python give 0 or infinity
    exact := given::numeric;
    IF abs(exact) < 1e-300 THEN
        RETURN 0;
    ELSIF abs(exact) > 1e300 THEN
        RETURN NULL;
    END IF;
    wide := exact;
    RETURN CASE
        WHEN abs(wide) <= power(2::double precision, -150) THEN 0
        WHEN abs(wide) < power(2::double precision, 128) - power(2::double precision, 103) THEN wide::real
    END;
END
$$;
COMMENT ON FUNCTION genesis.feature_value(text, jsonb)
    IS 'A feature as a forest takes it: of 32 bits, and NULL for what was not seen, is infinite or too large';

CREATE OR REPLACE FUNCTION genesis.own_server()
RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF has_function_privilege('pg_control_system()', 'EXECUTE') THEN
        RETURN (SELECT system_identifier FROM pg_control_system());
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION genesis.own_server()
    IS 'System identifier of the server that this database is on; NULL where the role may not see it';

CREATE OR REPLACE VIEW genesis.chosen_forests AS
SELECT DISTINCT ON (kind) *
FROM genesis.forests
WHERE coalesce(current_setting('genesis.server', true), '') IN ('', server)
ORDER BY kind, server = genesis.own_server() DESC NULLS LAST, trained_at DESC;
COMMENT ON VIEW genesis.chosen_forests IS 'The forest of each kind that predicts: that of the server that the setting '
    'genesis.server names; without it that of this server or, where it has none, the one trained last';

CREATE OR REPLACE FUNCTION genesis.written_trees(of_kind text)
RETURNS text[]
-- numbers are written with all of their digits
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $$
DECLARE
    first_nodes integer[];
    asked integer[];
    thresholds double precision[];
    lefts integer[];
    rights integer[];
    missing_left boolean[];
    values_said double precision[];
    written text[];
BEGIN
    SELECT roots, feature, threshold, left_node, right_node, missing_goes_left,
        CASE WHEN kind = 'latency' THEN value END
    INTO STRICT first_nodes, asked, thresholds, lefts, rights, missing_left, values_said
    FROM genesis.chosen_forests WHERE kind = of_kind;
    written := array_fill(NULL::text, ARRAY[cardinality(asked)]);
    -- children lie behind their parent, and so are written already
    FOR node IN REVERSE cardinality(asked)..1 LOOP
        written[node] := CASE
            WHEN lefts[node] = node THEN coalesce('float8 ''' || values_said[node] || '''', node::text)
            ELSE 'CASE WHEN ' || CASE WHEN missing_left[node] THEN 'y' ELSE 'x' END || asked[node] || '<='''
                || thresholds[node] || ''' THEN ' || written[lefts[node]]
                || ' ELSE ' || written[rights[node]] || ' END'
        END;
    END LOOP;
    RETURN array(
        SELECT written[root.node] FROM unnest(first_nodes) WITH ORDINALITY AS root (node, place) ORDER BY root.place);
END
$$;
COMMENT ON FUNCTION genesis.written_trees(text) IS 'Each tree as an expression that gives the leaf that a row '
    'reaches, or what that says where it says one thing only (latency): x1 is the first feature, and NULL where it '
    'is missing; y1 is -Infinity there, which goes left';

CREATE OR REPLACE FUNCTION genesis.written_forest(of_kind text, names text[], is_careful boolean)
RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    forest record;
    cells text;
    columns text;
    leaves text;
    means text;
    deviation text := 'NULL::double precision';
    windows text := 'NULL::double precision';
BEGIN
    SELECT feature_names, feature, cardinality(roots) AS trees, coalesce(cardinality(calibrations), 1) AS outputs
    INTO STRICT forest
    FROM genesis.chosen_forests WHERE kind = of_kind;
    SELECT
        string_agg(format(', %s::real::double precision AS c%s', cell.written, used.number), ''),
        string_agg(format(', %1$s AS x%2$s, coalesce(%1$s, ''-Infinity'') AS y%2$s', CASE
            -- a cell of JSON is a number or NULL
            WHEN names IS NULL THEN 'c' || used.number
            ELSE format('CASE WHEN abs(c%1$s) < ''Infinity'' THEN c%1$s END', used.number)
        END, used.number), '')
    INTO cells, columns
    FROM (SELECT DISTINCT unnest(forest.feature) AS number) AS used
    CROSS JOIN LATERAL (SELECT forest.feature_names[used.number] AS name) AS feature
    CROSS JOIN LATERAL (SELECT array_position(names, feature.name) AS place) AS of_matrix
    CROSS JOIN LATERAL (
        SELECT CASE
            WHEN names IS NULL AND is_careful THEN
                format('genesis.feature_value(%1$L, features -> %1$L)', feature.name)
            WHEN names IS NULL THEN format('(features ->> %L)::double precision', feature.name)
            WHEN of_matrix.place IS NULL THEN 'NULL'
            WHEN is_careful THEN
                format('genesis.feature_value(%L, to_jsonb(matrix[place][%s]))', feature.name, of_matrix.place)
            ELSE format('matrix[place][%s]', of_matrix.place)
        END AS written
    ) AS cell;
    SELECT string_agg(format(', %s AS t%s', tree.written, tree.place), '' ORDER BY tree.place)
    INTO leaves
    FROM unnest(genesis.written_trees(of_kind)) WITH ORDINALITY AS tree (written, place);
    IF of_kind = 'latency' THEN
        SELECT
            format('(%s) / %s', string_agg('t' || tree, ' + ' ORDER BY tree), forest.trees),
            -- a square that underflows is an error to the server, and so nothing quite that small is squared
            format('sqrt((%s) / %s)',
                string_agg(format('(abs(t%s - mean1) + 1e-150::double precision) ^ 2', tree), ' + '), forest.trees)
        INTO means, deviation
        FROM generate_series(1, forest.trees) AS tree;
    ELSE
        SELECT
            string_agg(format('(%s) / %s', mean.sum, forest.trees), ', ' ORDER BY mean.output)
        INTO means
        FROM (
            SELECT
                output,
                string_agg(format('said[t%s * %s - %s]', tree, forest.outputs, forest.outputs - output), ' + ') AS sum
            FROM generate_series(1, forest.outputs) AS output
            CROSS JOIN generate_series(1, forest.trees) AS tree
            GROUP BY output
        ) AS mean;
        SELECT format('((%s) / %s) ^ -2', string_agg(format('rough[t%s]', tree), ' + '), forest.trees)
        INTO windows
        FROM generate_series(1, forest.trees) AS tree;
    END IF;
    -- OFFSET 0 keeps the planner from writing a column, or a whole array, out in each of its thousand places
    RETURN format(
        -- what is sorted holds a row's figures only, and no array of all nodes: 16 and newer sort whole rows for this
        'SELECT array_agg(log_mean ORDER BY place), array_agg(means ORDER BY place), '
        'array_agg(deviation ORDER BY place), array_agg(windows ORDER BY place) '
        'FROM (SELECT place, log_mean, means, %s AS deviation, %s AS windows '
        'FROM (SELECT *, means[1] AS mean1 FROM (SELECT *, ARRAY[%s] AS means '
        'FROM (SELECT place, log_mean, said, rough%s FROM (SELECT place, log_mean, said, rough%s '
        'FROM (SELECT place, said, rough, %s AS log_mean%s FROM (SELECT matrix, said, rough, %s AS place '
        'FROM (SELECT $1 AS rows, $2 AS matrix, $3 AS said, (SELECT array_agg(1 / sqrt(node.samples::double precision) ORDER BY node.number) '
        'FROM unnest($4) WITH ORDINALITY AS node (samples, number)) AS rough OFFSET 0) AS known) AS given '
        'OFFSET 0) AS cell OFFSET 0) AS seen OFFSET 0) AS reached OFFSET 0) AS every OFFSET 0) AS summed '
        'OFFSET 0) AS told',
        deviation, windows, means, leaves, columns,
        CASE
            WHEN names IS NULL THEN
                'CASE jsonb_typeof(features -> ''latency.log_mean'') WHEN ''number'' '
                'THEN (features ->> ''latency.log_mean'')::double precision END'
            WHEN array_position(names, 'latency.log_mean') IS NULL THEN 'NULL::double precision'
            ELSE format('CASE WHEN abs(matrix[place][%1$s]) < ''Infinity'' THEN matrix[place][%1$s] END',
                array_position(names, 'latency.log_mean'))
        END,
        cells,
        CASE
            WHEN names IS NULL THEN 'unnest(rows) AS features, generate_series(1, cardinality(rows))'
            ELSE 'generate_series(1, array_length(matrix, 1))'
        END);
END
$$;
COMMENT ON FUNCTION genesis.written_forest(text, text[], boolean)
    IS 'A query that does what ask_forest() does: $1 features, $2 matrix, $3 values and $4 samples of the nodes';

CREATE OR REPLACE FUNCTION genesis.walk_forest(
    of_kind text, features jsonb[], OUT log_means double precision[], OUT means double precision[],
    OUT deviations double precision[], OUT windows double precision[])
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    names text[];
    first_nodes integer[];
    asked integer[];
    thresholds double precision[];
    lefts integer[];
    rights integer[];
    missing_left boolean[];
    samples_of integer[];
    node_values double precision[];
    outputs integer;
    are_asked_for boolean[];
    given jsonb;
    seen double precision[];
    leaves integer[];
    node integer;
BEGIN
    SELECT feature_names, roots, feature, threshold, left_node, right_node, missing_goes_left, samples, value,
        coalesce(cardinality(calibrations), 1)
    INTO STRICT names, first_nodes, asked, thresholds, lefts, rights, missing_left, samples_of, node_values, outputs
    FROM genesis.chosen_forests WHERE kind = of_kind;
    -- what no node asks for does no harm, as where the trees are written out
    are_asked_for := array(
        SELECT place IN (SELECT unnest(asked)) FROM generate_subscripts(names, 1) AS place ORDER BY place);
    FOREACH given IN ARRAY features LOOP
        seen := array(
            SELECT CASE WHEN named.is_asked_for THEN genesis.feature_value(named.name, given -> named.name) END
            FROM unnest(names, are_asked_for) WITH ORDINALITY AS named (name, is_asked_for, place)
            ORDER BY named.place);
        leaves := first_nodes;
        FOR tree IN 1..cardinality(leaves) LOOP
            node := leaves[tree];
            WHILE lefts[node] <> node LOOP
                node := CASE WHEN coalesce(seen[asked[node]] <= thresholds[node], missing_left[node])
                    THEN lefts[node] ELSE rights[node] END;
            END LOOP;
            leaves[tree] := node;
        END LOOP;
        log_means := log_means || CASE WHEN jsonb_typeof(given -> 'latency.log_mean') = 'number'
            THEN (given ->> 'latency.log_mean')::double precision END;
        means := means || ARRAY[array(
            SELECT avg(node_values[leaf * outputs - outputs + output])
            FROM generate_series(1, outputs) AS output CROSS JOIN unnest(leaves) AS leaf
            GROUP BY output ORDER BY output)];
        deviations := deviations || CASE WHEN of_kind = 'latency'
            THEN (SELECT stddev_pop(node_values[leaf]) FROM unnest(leaves) AS leaf) END;
        windows := windows || CASE WHEN of_kind = 'errors'
            THEN (SELECT avg(1 / sqrt(samples_of[leaf]::double precision)) ^ -2 FROM unnest(leaves) AS leaf) END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION genesis.walk_forest(text, jsonb[]) IS 'What ask_forest() does, step by step';

CREATE OR REPLACE FUNCTION genesis.ask_forest(
    of_kind text, features jsonb[], names text[], matrix double precision[], OUT log_means double precision[],
    OUT means double precision[], OUT deviations double precision[], OUT windows double precision[])
-- with its subtransaction it cannot run beside parallel workers
LANGUAGE plpgsql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off
    SET extra_float_digits = 1
    -- a plan for one value of a parameter holds a copy of it, and is copied itself: of all rows, several times
    SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    many constant integer := 100;  -- from here on it pays to write the forest out
    rows_total constant integer := coalesce(cardinality(features), array_length(matrix, 1), 0);
    node_values double precision[];
    samples_of integer[];
    outputs integer;
    is_careful boolean;
BEGIN
    SELECT value, samples, coalesce(cardinality(calibrations), 1) INTO node_values, samples_of, outputs
    FROM genesis.chosen_forests WHERE kind = of_kind;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no forest of kind % is stored in schema genesis of database %', of_kind || coalesce(
            ' of server ' || nullif(current_setting('genesis.server', true), ''), ''), current_database()
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Train one: genesis-pg train.';
    ELSIF cardinality(names) > 0 AND (
        array_dims(names) <> format('[1:%s]', cardinality(names))
        OR (SELECT count(DISTINCT named) <> cardinality(names) FROM (SELECT unnest(names) AS named OFFSET 0) AS each)
    ) THEN
        RAISE EXCEPTION 'names are not a plain array of names, each given once'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Write ARRAY[''latency.log_mean'', ''locks.waiting''].';
    ELSIF array_dims(matrix) <> format('[1:%s][1:%s]', rows_total, cardinality(names)) THEN
        RAISE EXCEPTION 'the matrix has dimensions %, and there are % names', array_dims(matrix), cardinality(names)
            USING ERRCODE = 'array_subscript_error', HINT = 'Give a row for each window, and a column for each name.';
    ELSIF array_dims(features) <> format('[1:%s]', rows_total)
        -- in the list of columns unnest() keeps no copy
        OR (SELECT count(*) FILTER (WHERE jsonb_typeof(given) IS DISTINCT FROM 'object')
            FROM (SELECT unnest(features) AS given OFFSET 0) AS each) > 0 THEN
        RAISE EXCEPTION 'features are not a JSON object, or a plain array of such'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Write {"latency.log_mean": -6.2, "locks.waiting": 3}.';
    ELSIF outputs = 0 THEN
        RETURN;  -- no class of error occurred often enough to be learned
    ELSIF rows_total < many THEN
        SELECT said.log_means, said.means, said.deviations, said.windows
        INTO log_means, means, deviations, windows
        FROM genesis.walk_forest(of_kind, coalesce(features, array(
            SELECT (
                SELECT coalesce(jsonb_object_agg(names[place], matrix[number][place]), '{}')
                FROM generate_subscripts(names, 1) AS place
            )
            FROM generate_series(1, rows_total) AS number ORDER BY number))) AS said;
        RETURN;
    END IF;
    -- both mean that it was not seen; in an array with a NULL every cell is looked for from the first one on
    matrix := array_replace(matrix, NULL, 'NaN');
    -- the cast would take a text that reads like a number; where there is any text, each value is looked at
    is_careful := coalesce(
        (SELECT bool_or(given @@ '$.* starts with ""') FROM (SELECT unnest(features) AS given OFFSET 0) AS each),
        false);
    BEGIN
        EXECUTE genesis.written_forest(of_kind, names, is_careful)
        INTO log_means, means, deviations, windows USING features, matrix, node_values, samples_of;
    EXCEPTION
        WHEN numeric_value_out_of_range OR invalid_text_representation THEN
            EXECUTE genesis.written_forest(of_kind, names, true)
            INTO log_means, means, deviations, windows USING features, matrix, node_values, samples_of;
    END;
END
$$;
COMMENT ON FUNCTION genesis.ask_forest(text, jsonb[], text[], double precision[])
    IS 'What the trees of a forest say of each row, given as JSON, or as names and a matrix: their mean for each '
    'output, their deviation (latency), how many windows they rest on (errors)';

CREATE OR REPLACE FUNCTION genesis.latencies_said(
    log_means double precision[], means double precision[], deviations double precision[])
RETURNS TABLE (
    place bigint, predicted_seconds double precision, low_seconds double precision, high_seconds double precision,
    level double precision)
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT
        said.place,
        exp(coalesce(said.log_mean + said.mean, forest.usual_log_seconds[2])),
        exp(coalesce(said.log_mean + said.mean - said.half, forest.usual_log_seconds[1])),
        exp(coalesce(said.log_mean + said.mean + said.half, forest.usual_log_seconds[3])),
        forest.level
    FROM genesis.chosen_forests AS forest
    CROSS JOIN LATERAL (
        SELECT
            each.place, each.log_mean, each.mean,
            least(forest.factor * (each.deviation + forest.floor), 20) AS half  -- in logs, as in models.forest
        FROM unnest(log_means, means, deviations) WITH ORDINALITY AS each (log_mean, mean, deviation, place)
    ) AS said
    WHERE forest.kind = 'latency'
$$;
COMMENT ON FUNCTION genesis.latencies_said(double precision[], double precision[], double precision[])
    IS 'Seconds, from what ask_forest() gives';

CREATE OR REPLACE FUNCTION genesis.errors_said(means double precision[], windows double precision[])
RETURNS TABLE (
    place bigint, error_class text, probability double precision, low_probability double precision,
    high_probability double precision, level double precision)
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    SET enable_memoize = off  -- it hashes each curve for each row, and remembers what is asked for once
AS $$
    SELECT
        each.place,
        curve.error_class,
        calibrated.p,
        greatest(0, wilson.center - wilson.half),
        least(1, wilson.center + wilson.half),
        forest.level
    FROM genesis.chosen_forests AS forest
    CROSS JOIN unnest(forest.calibrations)
        WITH ORDINALITY AS curve (error_class, method, raw, observed, beats_naive, output)
    CROSS JOIN unnest(windows) WITH ORDINALITY AS each (windows, place)
    CROSS JOIN LATERAL (SELECT means[each.place::integer][curve.output::integer] AS raw OFFSET 0) AS said
    CROSS JOIN LATERAL (SELECT width_bucket(said.raw, curve.raw) AS i OFFSET 0) AS corner
    CROSS JOIN LATERAL (
        SELECT CASE
            WHEN corner.i = 0 THEN curve.observed[1]
            WHEN corner.i = cardinality(curve.raw) THEN curve.observed[corner.i]
            ELSE curve.observed[corner.i] + (said.raw - curve.raw[corner.i])
                * (curve.observed[corner.i + 1] - curve.observed[corner.i])
                / (curve.raw[corner.i + 1] - curve.raw[corner.i])
        END AS p
        OFFSET 0
    ) AS calibrated
    -- normal quantile of a two-sided interval of 90 %, as in models.error_forest
    CROSS JOIN LATERAL (SELECT 1.6449::double precision ^ 2 / each.windows AS weight) AS z
    CROSS JOIN LATERAL (
        SELECT
            (calibrated.p + z.weight / 2) / (1 + z.weight) AS center,
            sqrt(z.weight * calibrated.p * (1 - calibrated.p) + z.weight ^ 2 / 4) / (1 + z.weight) AS half
    ) AS wilson
    WHERE forest.kind = 'errors'
    ORDER BY each.place, curve.output
$$;
COMMENT ON FUNCTION genesis.errors_said(double precision[], double precision[])
    IS 'Calibrated probabilities, with Wilson''s interval, from what ask_forest() gives';

CREATE OR REPLACE FUNCTION genesis.predict_latencies(features jsonb[])
RETURNS TABLE (
    place bigint, predicted_seconds double precision, low_seconds double precision, high_seconds double precision,
    level double precision)
LANGUAGE sql STABLE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan  -- as in ask_forest()
AS $$
    SELECT predicted.*
    FROM genesis.ask_forest('latency', features, NULL, NULL) AS said
    CROSS JOIN LATERAL genesis.latencies_said(said.log_means, said.means, said.deviations) AS predicted
$$;
COMMENT ON FUNCTION genesis.predict_latencies(jsonb[])
    IS 'Mean response of the next window in seconds, for each row of features, with its interval';

CREATE OR REPLACE FUNCTION genesis.predict_latencies(names text[], matrix double precision[])
RETURNS TABLE (
    place bigint, predicted_seconds double precision, low_seconds double precision, high_seconds double precision,
    level double precision)
LANGUAGE sql STABLE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT predicted.*
    FROM genesis.ask_forest('latency', NULL, names, matrix) AS said
    CROSS JOIN LATERAL genesis.latencies_said(said.log_means, said.means, said.deviations) AS predicted
$$;
COMMENT ON FUNCTION genesis.predict_latencies(text[], double precision[])
    IS 'The same for the rows of a matrix, whose columns are the named features; NULL or NaN for what was not seen';

CREATE OR REPLACE FUNCTION genesis.predict_errors(features jsonb[])
RETURNS TABLE (
    place bigint, error_class text, probability double precision, low_probability double precision,
    high_probability double precision, level double precision)
LANGUAGE sql STABLE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan  -- as in ask_forest()
AS $$
    SELECT predicted.*
    FROM genesis.ask_forest('errors', features, NULL, NULL) AS said
    CROSS JOIN LATERAL genesis.errors_said(said.means, said.windows) AS predicted
$$;
COMMENT ON FUNCTION genesis.predict_errors(jsonb[])
    IS 'Probability that an error of each learned class occurs in the next window, for each row of features';

CREATE OR REPLACE FUNCTION genesis.predict_errors(names text[], matrix double precision[])
RETURNS TABLE (
    place bigint, error_class text, probability double precision, low_probability double precision,
    high_probability double precision, level double precision)
LANGUAGE sql STABLE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT predicted.*
    FROM genesis.ask_forest('errors', NULL, names, matrix) AS said
    CROSS JOIN LATERAL genesis.errors_said(said.means, said.windows) AS predicted
$$;
COMMENT ON FUNCTION genesis.predict_errors(text[], double precision[])
    IS 'The same for the rows of a matrix, whose columns are the named features; NULL or NaN for what was not seen';

CREATE OR REPLACE FUNCTION genesis.predict_latency_seconds(
    features jsonb, OUT predicted_seconds double precision, OUT low_seconds double precision,
    OUT high_seconds double precision, OUT level double precision)
LANGUAGE sql STABLE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT said.predicted_seconds, said.low_seconds, said.high_seconds, said.level
    FROM genesis.predict_latencies(ARRAY[features]) AS said
$$;
COMMENT ON FUNCTION genesis.predict_latency_seconds(jsonb)
    IS 'Mean response of the next window in seconds, with its interval; for many rows see predict_latencies()';

CREATE OR REPLACE FUNCTION genesis.predict_error_probability(features jsonb)
RETURNS TABLE (
    error_class text, probability double precision, low_probability double precision,
    high_probability double precision, level double precision)
LANGUAGE sql STABLE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT said.error_class, said.probability, said.low_probability, said.high_probability, said.level
    FROM genesis.predict_errors(ARRAY[features]) AS said
$$;
COMMENT ON FUNCTION genesis.predict_error_probability(jsonb)
    IS 'Probability that an error of each class occurs in the next window; for many rows see predict_errors()';

CREATE OR REPLACE FUNCTION genesis.predict_error_probability(features jsonb, of_class text)
RETURNS double precision
LANGUAGE sql STABLE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT said.probability FROM genesis.predict_errors(ARRAY[features]) AS said WHERE said.error_class = of_class
$$;
COMMENT ON FUNCTION genesis.predict_error_probability(jsonb, text)
    IS 'Probability that an error of the class occurs in the next window; NULL for a class that was not learned';

CREATE OR REPLACE FUNCTION genesis.forecast_windows(from_time timestamptz, until_time timestamptz)
RETURNS TABLE (
    started_at timestamptz, ended_at timestamptz, run text, configuration_id text, kind text,
    predicted double precision, low double precision, high double precision, level double precision,
    naive double precision, actual double precision, model_id text, beats_naive boolean)
LANGUAGE plpgsql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
DECLARE
    windows_at_once constant integer := 1500;  -- of some 4 kB each
    portion record;
    -- a FOR loop would fetch ten portions at a time, and then fifty
    portions CURSOR FOR
        SELECT
            array_agg(pair.after_started_at ORDER BY pair.number) AS starts,
            array_agg(pair.after_ended_at ORDER BY pair.number) AS ends,
            array_agg(pair.server ORDER BY pair.number) AS servers,
            array_agg(pair.run ORDER BY pair.number) AS runs,
            array_agg(pair.configuration_id ORDER BY pair.number) AS configurations,
            array_agg(pair.features ORDER BY pair.number) AS befores,
            array_agg(pair.after_features ORDER BY pair.number) AS afters
        FROM (
            SELECT *, row_number() OVER (ORDER BY seen.after_started_at, seen.window_id) - 1 AS number
            FROM (
                SELECT
                    recorded.*,
                    lead(recorded.started_at) OVER after AS after_started_at,
                    lead(recorded.ended_at) OVER after AS after_ended_at,
                    lead(recorded.configuration_id) OVER after AS after_configuration_id,
                    lead(recorded.features) OVER after AS after_features
                FROM genesis.window_features(from_time, until_time) AS recorded
                WINDOW after AS (PARTITION BY recorded.server, recorded.run ORDER BY recorded.started_at, recorded.window_id)
            ) AS seen
            -- what comes after a gap, or under another configuration, is not what was forecast
            WHERE seen.after_configuration_id = seen.configuration_id
                AND abs(date_part('epoch', seen.after_started_at - seen.ended_at))
                    <= 0.1 * date_part('epoch', seen.ended_at - seen.started_at)
        ) AS pair
        GROUP BY pair.number / windows_at_once
        ORDER BY pair.number / windows_at_once;
BEGIN
    OPEN portions;
    LOOP
        FETCH portions INTO portion;
        EXIT WHEN NOT FOUND;
        IF EXISTS (SELECT FROM genesis.chosen_forests AS forest WHERE forest.kind = 'latency') THEN
            RETURN QUERY
            SELECT
                pair.started_at, pair.ended_at, pair.run, pair.configuration_id, 'latency_seconds',
                said.predicted_seconds, said.low_seconds, said.high_seconds, said.level,
                exp((pair.before ->> 'latency.log_mean')::double precision),
                exp((pair.after ->> 'latency.log_mean')::double precision),
                forest.model_id, forest.beats_naive
            FROM genesis.predict_latencies(portion.befores) AS said
            JOIN unnest(
                portion.starts, portion.ends, portion.servers, portion.runs, portion.configurations, portion.befores,
                portion.afters)
                WITH ORDINALITY AS pair (started_at, ended_at, server, run, configuration_id, before, after, place)
                USING (place)
            CROSS JOIN genesis.chosen_forests AS forest
            WHERE forest.kind = 'latency' AND pair.after ->> 'latency.log_mean' IS NOT NULL
                -- of another server's windows it knows nothing
                AND coalesce(forest.server IN ('', pair.server), true);
        END IF;
        IF EXISTS (SELECT FROM genesis.chosen_forests AS forest WHERE forest.kind = 'errors') THEN
            RETURN QUERY
            SELECT
                pair.started_at, pair.ended_at, pair.run, pair.configuration_id,
                'error_probability:' || said.error_class, said.probability, said.low_probability,
                said.high_probability, said.level,
                NULL::double precision, happened.actual, forest.model_id, curve.beats_naive
            FROM genesis.predict_errors(portion.befores) AS said
            JOIN unnest(
                portion.starts, portion.ends, portion.servers, portion.runs, portion.configurations, portion.befores,
                portion.afters)
                WITH ORDINALITY AS pair (started_at, ended_at, server, run, configuration_id, before, after, place)
                USING (place)
            CROSS JOIN LATERAL (
                SELECT CASE
                    WHEN (pair.after ->> 'latency.is_timed_by_us')::integer = 1 THEN
                        ((pair.after ->> ('errors.' || said.error_class || '_ratio'))::double precision > 0)
                    -- of sessions that are not ours the server counts deadlocks only
                    WHEN said.error_class = 'deadlock' THEN
                        round((pair.after ->> 'database.deadlocks_per_second')::double precision
                            * (pair.after ->> 'time.window_seconds')::double precision) > 0
                END::integer::double precision AS actual
            ) AS happened
            CROSS JOIN genesis.chosen_forests AS forest
            JOIN LATERAL unnest(forest.calibrations) AS curve ON curve.error_class = said.error_class
            WHERE forest.kind = 'errors' AND happened.actual IS NOT NULL
                AND coalesce(forest.server IN ('', pair.server), true);
        END IF;
    END LOOP;
    CLOSE portions;
END
$$;
COMMENT ON FUNCTION genesis.forecast_windows(timestamptz, timestamptz)
    IS 'What the stored forests say of each window from the one before it, beside what happened';

CREATE OR REPLACE VIEW genesis.forecasts AS
SELECT
    started_at, ended_at, run, configuration_id, kind, predicted, low, high, level, naive, actual,
    CASE WHEN kind = 'latency_seconds' THEN actual BETWEEN low AND high END AS held,
    model_id, beats_naive
FROM genesis.forecast_windows(now() - interval '1 day', 'infinity')
ORDER BY started_at DESC, kind;
COMMENT ON VIEW genesis.forecasts IS 'The windows of the last day: forecast from the one before, and what happened; '
    'forecast_windows() for other times';
COMMENT ON COLUMN genesis.forecasts.predicted IS 'latency_seconds: mean response; error_probability: 0 to 1';
COMMENT ON COLUMN genesis.forecasts.naive IS 'What the window before would let expect';
COMMENT ON COLUMN genesis.forecasts.actual IS 'What happened; for a probability 1 or 0';

CREATE OR REPLACE VIEW genesis.forest_nodes AS
SELECT
    forest.kind,
    node.number AS node,
    node.number = ANY (forest.roots) AS is_root,
    CASE WHEN node.left_node <> node.number THEN forest.feature_names[node.feature] END AS feature,
    CASE WHEN node.left_node <> node.number THEN node.threshold END AS threshold,
    nullif(node.left_node, node.number) AS left_node,
    nullif(node.right_node, node.number) AS right_node,
    CASE WHEN node.left_node <> node.number THEN node.missing_goes_left END AS missing_goes_left,
    node.samples,
    forest.server
FROM genesis.forests AS forest
CROSS JOIN LATERAL unnest(
    forest.feature, forest.threshold, forest.left_node, forest.right_node, forest.missing_goes_left, forest.samples)
    WITH ORDINALITY AS node (feature, threshold, left_node, right_node, missing_goes_left, samples, number);
COMMENT ON VIEW genesis.forest_nodes
    IS 'The stored forests, a row a node: at most the threshold goes left; leaves ask for nothing';
