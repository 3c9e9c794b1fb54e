-- Everything of a year, grouped by two dimensions.
\set year random(2020, 2024)
SELECT stores.region, products.category, sum(sales.quantity * sales.unit_price - sales.discount) AS revenue
FROM sales
JOIN days USING (day_id)
JOIN stores USING (store_id)
JOIN products USING (product_id)
WHERE days.year = :year
GROUP BY stores.region, products.category
ORDER BY revenue DESC;
