-- Every combination of region, category and segment.
\set year random(2020, 2024)
\set quarter random(1, 4)
SELECT stores.region, products.category, customers.segment, sum(sales.quantity * sales.unit_price) AS revenue
FROM sales
JOIN days USING (day_id)
JOIN stores USING (store_id)
JOIN products USING (product_id)
JOIN customers USING (customer_id)
WHERE days.year = :year AND days.quarter = :quarter
GROUP BY CUBE (stores.region, products.category, customers.segment)
ORDER BY revenue DESC
LIMIT 200;
