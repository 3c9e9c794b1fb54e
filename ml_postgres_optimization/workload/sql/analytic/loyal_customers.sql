-- Customers by what they spent in two years, with a large hash table.
\set year random(2020, 2023)
SELECT customer_id, count(DISTINCT day_id) AS days, sum(quantity * unit_price) AS spent
FROM sales
WHERE day_id BETWEEN (:year - 2020) * 365 AND (:year - 2018) * 365
GROUP BY customer_id
ORDER BY spent DESC
LIMIT 100;
