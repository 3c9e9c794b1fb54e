INSERT INTO genesis_analytic.promotions (promotion_id, name, channel, discount_percent)
SELECT
    number,
    'promotion ' || number,
    (ARRAY['mail', 'web', 'shop', 'radio'])[1 + number %% 4],
    5 * (1 + number %% 8)
FROM generate_series(1, 100) AS number
