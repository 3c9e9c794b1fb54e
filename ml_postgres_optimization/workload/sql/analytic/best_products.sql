-- The best sellers of a category in a quarter.
\set year random(2020, 2024)
\set quarter random(1, 4)
\set category random(1, 10)
SELECT product_id, products.name, sum(sales.quantity) AS pieces
FROM sales
JOIN days USING (day_id)
JOIN products USING (product_id)
WHERE days.year = :year
    AND days.quarter = :quarter
    AND products.category = (ARRAY['food', 'drinks', 'home', 'garden', 'clothes', 'toys', 'books', 'sports', 'music', 'tools'])[:category]
GROUP BY product_id, products.name
ORDER BY pieces DESC, product_id
LIMIT 20;
