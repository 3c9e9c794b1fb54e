-- The spread of prices within each category: ordered-set aggregates, which sort.
\set first random(1, 1700)
SELECT
    products.category,
    percentile_cont(ARRAY[0.25, 0.5, 0.75, 0.95]) WITHIN GROUP (ORDER BY sales.unit_price) AS quartiles
FROM sales
JOIN products USING (product_id)
WHERE sales.day_id BETWEEN :first AND :first + 100
GROUP BY products.category;
