-- Products of a brand that a region did not sell in a season: an anti-join.
\set brand random(1, 300)
\set first random(1, 1700)
SELECT products.product_id, products.name
FROM products
WHERE products.brand = 'brand ' || :brand
    AND NOT EXISTS (
        SELECT
        FROM sales
        WHERE sales.product_id = products.product_id AND sales.day_id BETWEEN :first AND :first + 90
    )
ORDER BY products.product_id;
