-- A forest, in place of the one of its kind and server, or of one of which nobody could say whose it is.
WITH unclaimed AS (
    DELETE FROM genesis.forests WHERE kind = %(kind)s AND server = '' AND %(server)s::text <> ''
)
INSERT INTO /* genesis-pg */ genesis.forests (
    kind, server, model_id, trained_at, data_digest, beats_naive, score, feature_names, roots, feature, threshold,
    left_node, right_node, missing_goes_left, samples, value, level, factor, floor, usual_log_seconds, calibrations
)
VALUES (
    %(kind)s, coalesce(%(server)s::text, ''), %(model_id)s, %(trained_at)s, %(data_digest)s, %(beats_naive)s, %(score)s,
    %(feature_names)s::text[], %(roots)s::integer[], %(feature)s::integer[], %(threshold)s::double precision[], %(left)s::integer[],
    %(right)s::integer[], %(missing_goes_left)s::boolean[], %(samples)s::integer[], %(value)s::double precision[],
    %(level)s, %(factor)s, %(floor)s, %(usual_log_seconds)s::double precision[],
    CASE WHEN %(calibrations)s::jsonb IS NOT NULL THEN array(
        SELECT curve
        FROM jsonb_array_elements(%(calibrations)s) WITH ORDINALITY AS stored (item, place)
        CROSS JOIN jsonb_populate_record(NULL::genesis.error_calibration, stored.item) AS curve
        ORDER BY stored.place
    ) END
)
ON CONFLICT (kind, server) DO UPDATE SET
    model_id = excluded.model_id,
    trained_at = excluded.trained_at,
    data_digest = excluded.data_digest,
    beats_naive = excluded.beats_naive,
    score = excluded.score,
    feature_names = excluded.feature_names,
    roots = excluded.roots,
    feature = excluded.feature,
    threshold = excluded.threshold,
    left_node = excluded.left_node,
    right_node = excluded.right_node,
    missing_goes_left = excluded.missing_goes_left,
    samples = excluded.samples,
    value = excluded.value,
    level = excluded.level,
    factor = excluded.factor,
    floor = excluded.floor,
    usual_log_seconds = excluded.usual_log_seconds,
    calibrations = excluded.calibrations
