-- Deterministic: every value is a function of the row's number. Some four lines to a receipt, which has one day, store
-- and customer; days come in order, as sales do. Products and customers are skewed: the square of a uniform number.
INSERT INTO genesis_analytic.sales (
    sale_id, receipt_id, day_id, store_id, product_id, customer_id, promotion_id, quantity, unit_price, discount, cost
)
SELECT
    number,
    receipt,
    1 + (number * 1826 / (%(sales)s::bigint + 1))::integer,
    1 + (abs(hashint8(receipt)::bigint) %% %(stores)s::bigint)::integer,
    1 + floor(power(chance_of_product, 2) * %(products)s::bigint)::integer,
    1 + floor(power(chance_of_customer, 2) * %(customers)s::bigint)::integer,
    CASE WHEN promoted < 20 THEN 1 + promoted * 5 END,
    1 + (abs(hashint8(number + 3)::bigint) %% 6)::integer,
    price,
    CASE WHEN promoted < 20 THEN round(price / 10, 2) ELSE 0 END,
    round(price * 6 / 10, 2)
FROM generate_series(1, %(sales)s::bigint) AS number
CROSS JOIN LATERAL (
    SELECT
        number / 4 AS receipt,
        (abs(hashint8(number)::bigint) %% 1000000) / 1e6::double precision AS chance_of_product,
        (abs(hashint8(number / 4 + 1)::bigint) %% 1000000) / 1e6::double precision AS chance_of_customer,
        (abs(hashint8(number + 2)::bigint) %% 100)::integer AS promoted,
        (100 + abs(hashint8(number + 4)::bigint) %% 19900)::numeric / 100 AS price
) AS drawn
