-- Histograms of durations, bucket by bucket the same as telemetry.Histogram: after HdrHistogram
-- (https://hdrhistogram.org), 128 linear buckets in each of 33 octaves from 1 microsecond.

CREATE OR REPLACE FUNCTION genesis.bucket_of(seconds double precision)
RETURNS smallint
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    microseconds constant double precision := greatest(seconds, 1e-6) / 1e-6;
    octave integer := floor(ln(microseconds) / ln(2::double precision));
BEGIN
    -- the logarithm may be off by one ulp at a power of two
    IF power(2::double precision, octave) > microseconds THEN
        octave := octave - 1;
    ELSIF power(2::double precision, octave + 1) <= microseconds THEN
        octave := octave + 1;
    END IF;
    RETURN least(octave * 128 + trunc((microseconds / power(2::double precision, octave) - 1) * 128)::integer, 4223);
END
$$;

CREATE OR REPLACE FUNCTION genesis.histogram_of(seconds double precision[])
RETURNS genesis.histogram
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    WITH filled AS (
        SELECT
            genesis.bucket_of(duration.value) AS bucket,
            count(*) AS count,
            sum(greatest(duration.value, 0)) AS sum_seconds,
            max(greatest(duration.value, 0)) AS max_seconds
        FROM unnest(seconds) AS duration (value)
        GROUP BY 1
    ),
    span AS (
        SELECT min(bucket) AS first_bucket, max(bucket) AS last_bucket, sum(sum_seconds) AS sum_seconds,
            max(max_seconds) AS max_seconds
        FROM filled
    )
    SELECT
        coalesce(span.first_bucket, 0::smallint),
        array(
            SELECT coalesce(filled.count, 0)
            FROM generate_series(span.first_bucket::integer, span.last_bucket) AS every (bucket)
            LEFT JOIN filled ON filled.bucket = every.bucket
            ORDER BY every.bucket
        ),
        coalesce(span.sum_seconds, 0),
        coalesce(span.max_seconds, 0)
    FROM span
$$;
COMMENT ON FUNCTION genesis.histogram_of(double precision[]) IS 'Count durations in seconds';

CREATE OR REPLACE FUNCTION genesis.histogram_total(histogram genesis.histogram)
RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$ SELECT coalesce(sum(filled.count), 0)::bigint FROM unnest((histogram).counts) AS filled (count) $$;

CREATE OR REPLACE FUNCTION genesis.quantile_seconds(histograms genesis.histogram[], quantile double precision)
RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    WITH merged AS (
        SELECT
            part.first_bucket + filled.place::integer - 1 AS bucket,
            sum(filled.count) AS count,
            max(part.max_seconds) AS max_seconds
        FROM unnest(histograms) AS part
        CROSS JOIN LATERAL unnest(part.counts) WITH ORDINALITY AS filled (count, place)
        WHERE filled.count > 0
        GROUP BY 1
    ),
    running AS (
        SELECT
            bucket,
            sum(count) OVER (ORDER BY bucket) AS up_to_here,
            sum(count) OVER () AS total,
            max(max_seconds) OVER () AS max_seconds
        FROM merged
    )
    SELECT least(
        power(2::double precision, bucket / 128) * (1 + (bucket % 128 + 0.5::double precision) / 128) * 1e-6,
        max_seconds)
    FROM running
    WHERE up_to_here >= greatest(1, ceil(quantile * total::double precision))
    ORDER BY bucket
    LIMIT 1
$$;
COMMENT ON FUNCTION genesis.quantile_seconds(genesis.histogram[], double precision)
    IS 'Quantile (0 to 1) of all histograms together, within 0.4 %; NULL when they are empty';
