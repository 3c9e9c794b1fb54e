INSERT INTO genesis_analytic.products (product_id, name, brand, category, list_price, weight_grams)
SELECT
    number,
    'product ' || number,
    'brand ' || 1 + abs(hashint8(number)::bigint) %% 300,
    (ARRAY['food', 'drinks', 'home', 'garden', 'clothes', 'toys', 'books', 'sports', 'music', 'tools'])[
        1 + abs(hashint8(number + 1)::bigint) %% 10
    ],
    (1 + abs(hashint8(number + 2)::bigint) %% 20000)::numeric / 100,
    10 + (abs(hashint8(number + 3)::bigint) %% 5000)::integer
FROM generate_series(1, %(products)s::integer) AS number
