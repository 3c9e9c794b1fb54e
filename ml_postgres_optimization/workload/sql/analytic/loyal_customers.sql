-- Customers by what they spent in a year: sorted or hashed, with memory or without.
\set year random(2020, 2024)
SELECT customer_id, count(DISTINCT day_id) AS days, sum(quantity * unit_price) AS spent
FROM sales
WHERE day_id BETWEEN (:year - 2020) * 365 AND (:year - 2019) * 365
GROUP BY customer_id
ORDER BY spent DESC
LIMIT 100;
