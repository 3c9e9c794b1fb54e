-- Random numbers that are the same on every version and machine, and the schedule that is drawn with them.

CREATE OR REPLACE FUNCTION genesis_simulation.uniform(seed bigint, number bigint)
RETURNS double precision[]
LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$
    -- random() changed its generator in 15, and hash functions may change; SHA-256 cannot. Five draws of 48 bits.
    SELECT array_agg((('x' || substr(digest.hex, 1 + 12 * draw, 12))::bit(48)::bigint + 0.5::double precision)
        / (1::bigint << 48) ORDER BY draw)
    FROM (SELECT encode(sha256(convert_to(seed || ':' || number, 'UTF8')), 'hex')) AS digest (hex)
    CROSS JOIN generate_series(0, 4) AS draw
$$;
COMMENT ON FUNCTION genesis_simulation.uniform(bigint, bigint) IS 'Five numbers between 0 and 1, both excluded';

CREATE OR REPLACE FUNCTION genesis_simulation.zeta(items bigint, skew double precision)
RETURNS double precision
LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$ SELECT sum(power(rank, -skew)) FROM generate_series(1, items) AS rank $$;

CREATE OR REPLACE FUNCTION genesis_simulation.zipf_key(
    draw double precision, items integer, skew double precision, zeta_2 double precision, zeta_items double precision)
RETURNS integer
LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$
    -- J. Gray et al., Quickly generating billion-record synthetic databases, SIGMOD 1994, section 3.2
    WITH ranked AS (
        SELECT CASE
            WHEN draw * zeta_items < 1 THEN 1
            WHEN draw * zeta_items < 1 + power(0.5::double precision, skew) THEN least(2, items)
            ELSE least(items, 1 + floor(items * power(
                1 + (draw - 1) * (1 - power(2.0::double precision / items, 1 - skew)) / (1 - zeta_2 / zeta_items),
                1 / (1 - skew))))
        END AS rank
    )
    -- a prime spreads neighbouring ranks over the table: hot rows do not share a page
    SELECT 1 + (rank::bigint * 2654435761 % items)::integer FROM ranked
$$;
COMMENT ON FUNCTION genesis_simulation.zipf_key(
    double precision, integer, double precision, double precision, double precision)
    IS 'Key from 1 to items, whose popularity falls as rank to the power of -skew';

CREATE OR REPLACE FUNCTION genesis_simulation.intensity(seed bigint, minute integer)
RETURNS double precision
LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$
    -- The day's cycle: busiest at 14:00, at a quarter of that at 02:00. Every tenth ten minutes or so are a burst.
    SELECT (1 + 0.6 * sin(2 * pi() * (minute / 1440.0 - 8.0 / 24)))
        * CASE WHEN (genesis_simulation.uniform(seed, -1 - minute / 10))[1] < 0.1 THEN 3 ELSE 1 END
$$;

CREATE OR REPLACE FUNCTION genesis_simulation.make_schedule(
    the_seed bigint, operations integer, minutes integer, items integer)
RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    skew constant double precision := 0.99;  -- that of YCSB
    zeta_2 constant double precision := genesis_simulation.zeta(2, skew);
    zeta_items constant double precision := genesis_simulation.zeta(items, skew);
    until_minute double precision[];  -- [m + 1]: intensity summed up over the minutes before m
    kinds constant text[] := ARRAY['read', 'write', 'update', 'transaction', 'delete'];
    shares constant double precision[] := ARRAY[0, 0.45, 0.75, 0.90, 0.95];  -- mission: the soak's mix
BEGIN
    SELECT 0::double precision || array_agg(running.total ORDER BY running.minute) INTO until_minute
    FROM (
        SELECT minute, sum(genesis_simulation.intensity(the_seed, minute)) OVER (ORDER BY minute) AS total
        FROM generate_series(0, minutes - 1) AS minute
    ) AS running;
    DELETE FROM genesis_simulation.schedule WHERE schedule.seed = the_seed;
    -- Given their number, the arrivals of a Poisson process are independent draws from its intensity, put in order:
    -- J. F. C. Kingman, Poisson Processes, 1993, section 2.4.
    INSERT INTO genesis_simulation.schedule (seed, number, due_seconds, kind, account_id, other_id, amount)
    SELECT
        the_seed,
        row_number() OVER (ORDER BY arrival.due_minute, arrival.draw_number),
        60 * arrival.due_minute,
        kinds[width_bucket(arrival.draws[2], shares)],
        genesis_simulation.zipf_key(arrival.draws[3], items, skew, zeta_2, zeta_items),
        genesis_simulation.zipf_key(arrival.draws[4], items, skew, zeta_2, zeta_items),
        1 + floor(100 * arrival.draws[5])
    FROM (
        SELECT
            spot.draw_number,
            spot.draws,
            spot.minute - 1 + (spot.level - until_minute[spot.minute])
                / (until_minute[spot.minute + 1] - until_minute[spot.minute]) AS due_minute
        FROM (
            SELECT
                drawn.draw_number,
                drawn.draws,
                drawn.draws[1] * until_minute[minutes + 1] AS level,
                least(width_bucket(drawn.draws[1] * until_minute[minutes + 1], until_minute), minutes) AS minute
            FROM (
                SELECT draw_number, genesis_simulation.uniform(the_seed, draw_number) AS draws
                FROM generate_series(1, operations) AS draw_number
            ) AS drawn
        ) AS spot
    ) AS arrival;
END
$$;
COMMENT ON FUNCTION genesis_simulation.make_schedule(bigint, integer, integer, integer)
    IS 'Draw all operations of a seed into genesis_simulation.schedule';
