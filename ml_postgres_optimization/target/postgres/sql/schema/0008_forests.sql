-- Trained forests, the newest of each kind: what models.forest.Forest is in Python, node by node, counted from 1.
-- Whole arrays in one row, so that a forest is replaced by one statement, and one constraint sees all of it.
CREATE TYPE genesis.error_calibration AS (
    error_class text,
    method text,
    raw double precision[],
    observed double precision[],
    beats_naive boolean
);
COMMENT ON TYPE genesis.error_calibration
    IS 'Corners of the curve from a forest''s raw probability of an error to the observed one; straight in between';

-- Whether the walk from every root ends in a leaf, and no node is met on two ways: each is a root or the child of one
-- other, behind its parent. Otherwise a row that somebody made by hand could keep a walk going, or be written out as
-- an expression without end.
CREATE FUNCTION genesis.is_forest(
    features integer, outputs integer, roots integer[], feature integer[], threshold double precision[],
    left_node integer[], right_node integer[], missing_goes_left boolean[], samples integer[],
    value double precision[])
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    WITH shape AS (
        SELECT cardinality(feature) AS nodes
    ),
    is_even AS (
        SELECT
            nodes > 0
            AND cardinality(roots) > 0 AND array_lower(roots, 1) = 1 AND array_ndims(roots) = 1
            AND array_dims(feature) = format('[1:%s]', nodes)
            AND array_dims(threshold) = array_dims(feature)
            AND array_dims(left_node) = array_dims(feature)
            AND array_dims(right_node) = array_dims(feature)
            AND array_dims(missing_goes_left) = array_dims(feature)
            AND array_dims(samples) = array_dims(feature)
            AND (cardinality(value) = 0 AND outputs = 0 OR array_dims(value) = format('[1:%s]', nodes * outputs))
            AND array_position(value, NULL) IS NULL
            AND NOT EXISTS (SELECT FROM unnest(value) AS each (number) WHERE abs(each.number) >= 'Infinity') AS ok
        FROM shape
    ),
    node AS (
        SELECT *
        FROM unnest(feature, threshold, left_node, right_node, missing_goes_left, samples)
            WITH ORDINALITY AS each (feature, threshold, left_node, right_node, missing_goes_left, samples, place)
    ),
    reached AS (
        SELECT unnest(roots) AS place
        UNION ALL
        SELECT left_node FROM node WHERE left_node <> place
        UNION ALL
        SELECT right_node FROM node WHERE right_node <> place
    )
    SELECT coalesce(
        (SELECT ok FROM is_even)
        AND (
            SELECT bool_and(coalesce(
                node.feature BETWEEN 1 AND features
                -- infinite where a split tells only those that miss it from the rest
                AND node.threshold <> 'NaN'
                AND (node.left_node = place AND node.right_node = place
                    OR node.left_node > place AND node.right_node > place)
                AND node.missing_goes_left IS NOT NULL
                AND node.samples > 0, false))
            FROM node
        )
        AND (
            SELECT count(*) = nodes AND count(DISTINCT place) = nodes AND min(place) = 1 AND max(place) = nodes
            FROM reached CROSS JOIN shape GROUP BY nodes
        ), false)
$$;
COMMENT ON FUNCTION genesis.is_forest(
    integer, integer, integer[], integer[], double precision[], integer[], integer[], boolean[], integer[],
    double precision[])
    IS 'Whether these arrays make trees on which every walk ends';

CREATE FUNCTION genesis.are_calibrations(calibrations genesis.error_calibration[])
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(bool_and(coalesce(
        curve.error_class <> ''
        AND curve.method <> ''
        AND curve.beats_naive IS NOT NULL
        AND array_dims(curve.raw) = format('[1:%s]', cardinality(curve.raw))
        AND array_dims(curve.observed) = array_dims(curve.raw)
        AND NOT EXISTS (
            SELECT
            FROM (
                SELECT
                    corner.raw, corner.observed,
                    lag(corner.raw, 1, '-Infinity') OVER (ORDER BY corner.place) AS before
                FROM unnest(curve.raw, curve.observed) WITH ORDINALITY AS corner (raw, observed, place)
            ) AS step
            WHERE NOT coalesce(
                step.raw > step.before AND step.raw < 'Infinity' AND step.observed BETWEEN 0 AND 1, false)
        ), false)), true)
        AND count(*) = count(DISTINCT curve.error_class)
    FROM unnest(calibrations) AS curve
$$;
COMMENT ON FUNCTION genesis.are_calibrations(genesis.error_calibration[])
    IS 'Whether each is a curve of probabilities with its corners in order, and of a class of its own';

CREATE TABLE genesis.forests (
    kind text PRIMARY KEY CHECK (kind IN ('latency', 'errors')),
    model_id text NOT NULL,
    trained_at timestamptz NOT NULL,
    data_digest text NOT NULL,
    beats_naive boolean NOT NULL,
    score jsonb NOT NULL,
    feature_names text[] NOT NULL CHECK (
        cardinality(feature_names) BETWEEN 1 AND 800
        AND array_dims(feature_names) = format('[1:%s]', cardinality(feature_names))
        AND array_position(feature_names, NULL) IS NULL),
    roots integer[] NOT NULL CHECK (cardinality(roots) <= 500),
    feature integer[] NOT NULL,
    threshold double precision[] NOT NULL,
    left_node integer[] NOT NULL,
    right_node integer[] NOT NULL,
    missing_goes_left boolean[] NOT NULL,
    samples integer[] NOT NULL,
    value double precision[] NOT NULL,
    level double precision NOT NULL CHECK (level > 0 AND level < 1),
    factor double precision CHECK (factor >= 0 AND factor < 'Infinity'),
    floor double precision CHECK (floor >= 0 AND floor < 'Infinity'),
    usual_log_seconds double precision[] CHECK (
        array_dims(usual_log_seconds) = '[1:3]' AND array_position(usual_log_seconds, NULL) IS NULL
        AND usual_log_seconds[1] <= usual_log_seconds[2] AND usual_log_seconds[2] <= usual_log_seconds[3]
        AND usual_log_seconds[1] > '-Infinity' AND usual_log_seconds[3] < 'Infinity'),
    calibrations genesis.error_calibration[] CHECK (genesis.are_calibrations(calibrations)),
    CONSTRAINT forests_parts CHECK (
        CASE kind
            WHEN 'latency' THEN num_nulls(factor, floor, usual_log_seconds) = 0 AND calibrations IS NULL
            ELSE num_nonnulls(factor, floor, usual_log_seconds) = 0 AND calibrations IS NOT NULL
                AND (cardinality(calibrations) = 0
                    OR array_dims(calibrations) = format('[1:%s]', cardinality(calibrations)))
        END),
    CONSTRAINT forests_walk CHECK (genesis.is_forest(
        cardinality(feature_names), coalesce(cardinality(calibrations), 1), roots, feature, threshold, left_node,
        right_node, missing_goes_left, samples, value))
);
COMMENT ON TABLE genesis.forests IS 'The forest of each kind that was trained last; genesis.forest_nodes unfolds it';
COMMENT ON COLUMN genesis.forests.model_id IS 'Name of its file, and predictions.model_id of what it said';
COMMENT ON COLUMN genesis.forests.beats_naive
    IS 'Whether it may be acted on: it was better than a naive forecast, on later time';
COMMENT ON COLUMN genesis.forests.roots IS 'The first node of each tree; nodes are counted from 1';
COMMENT ON COLUMN genesis.forests.feature IS 'Of each node, the place in feature_names of what it asks for';
COMMENT ON COLUMN genesis.forests.threshold
    IS 'A row whose feature is at most this goes left, one that is larger goes right';
COMMENT ON COLUMN genesis.forests.left_node IS 'The node itself for a leaf';
COMMENT ON COLUMN genesis.forests.samples IS 'How many training rows fell into the node';
COMMENT ON COLUMN genesis.forests.value
    IS 'What each node says: latency, the change of the natural log; errors, a raw probability for each calibration';
COMMENT ON COLUMN genesis.forests.factor IS 'Half of the interval of a latency forest, in spreads';
COMMENT ON COLUMN genesis.forests.floor IS 'What is added to the deviation of the trees to make a spread';
COMMENT ON COLUMN genesis.forests.usual_log_seconds IS '5, 50 and 95 % quantile, for a window without any operation';

INSERT INTO genesis.schema_version (version, name) VALUES (8, 'forests');
