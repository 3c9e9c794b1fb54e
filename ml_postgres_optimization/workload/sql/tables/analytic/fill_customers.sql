INSERT INTO genesis_analytic.customers (customer_id, name, segment, region, birth_year, joined_on)
SELECT
    number,
    'customer ' || number,
    (ARRAY['consumer', 'family', 'business', 'public'])[1 + abs(hashint8(number)::bigint) %% 4],
    (ARRAY['north', 'south', 'east', 'west', 'centre'])[1 + abs(hashint8(number + 1)::bigint) %% 5],
    1940 + (abs(hashint8(number + 2)::bigint) %% 65)::integer,
    date '2015-01-01' + (abs(hashint8(number + 3)::bigint) %% 3000)::integer
FROM generate_series(1, %(customers)s::integer) AS number
