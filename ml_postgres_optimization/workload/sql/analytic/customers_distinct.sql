-- How many different customers each store had: distinct values, by sorting.
\set first random(1, 1700)
SELECT store_id, count(DISTINCT customer_id) AS customers
FROM sales
WHERE day_id BETWEEN :first AND :first + 120
GROUP BY store_id;
