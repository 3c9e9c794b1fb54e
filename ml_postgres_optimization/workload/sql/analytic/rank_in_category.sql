-- Products ranked within their category.
\set first random(1, 1600)
SELECT category, name, revenue
FROM (
    SELECT
        products.category,
        products.name,
        sum(sales.quantity * sales.unit_price) AS revenue,
        rank() OVER (PARTITION BY products.category ORDER BY sum(sales.quantity * sales.unit_price) DESC) AS place
    FROM sales
    JOIN products USING (product_id)
    WHERE sales.day_id BETWEEN :first AND :first + 180
    GROUP BY products.category, products.name
) AS ranked
WHERE place <= 5
ORDER BY category, place;
