INSERT INTO genesis_analytic.stores (store_id, name, city, region, area_square_metres, opened_on)
SELECT
    number,
    'store ' || number,
    'city ' || 1 + abs(hashint8(number)::bigint) %% 60,
    (ARRAY['north', 'south', 'east', 'west', 'centre'])[1 + number %% 5],
    200 + (abs(hashint8(number + 1000)::bigint) %% 4000)::integer,
    date '2000-01-01' + (abs(hashint8(number + 2000)::bigint) %% 7000)::integer
FROM generate_series(1, %(stores)s::integer) AS number
