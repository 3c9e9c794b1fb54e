-- Histograms of durations, bucket by bucket the same as telemetry.Histogram: after HdrHistogram
-- (https://hdrhistogram.org), 128 linear buckets in each of 33 octaves from 1 µs.

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
    SELECT
        coalesce(array_agg(filled.bucket ORDER BY filled.bucket), '{}'),
        coalesce(array_agg(filled.count ORDER BY filled.bucket), '{}'),
        coalesce(sum(filled.sum_seconds), 0),
        coalesce(max(filled.max_seconds), 0)
    FROM (
        SELECT
            genesis.bucket_of(duration.value) AS bucket,
            count(*) AS count,
            sum(greatest(duration.value, 0)) AS sum_seconds,
            max(greatest(duration.value, 0)) AS max_seconds
        FROM unnest(seconds) AS duration (value)
        GROUP BY 1
    ) AS filled
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
        SELECT filled.bucket, sum(filled.count) AS count, max((part).max_seconds) AS max_seconds
        FROM unnest(histograms) AS part
        CROSS JOIN LATERAL unnest((part).buckets, (part).counts) AS filled (bucket, count)
        GROUP BY filled.bucket
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
