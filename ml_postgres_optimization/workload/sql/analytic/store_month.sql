-- One store in one month: an index range.
\set store random(1, 200)
\set first random(1, 1790)
SELECT day_id, count(*) AS lines, sum(quantity * unit_price) AS revenue
FROM sales
WHERE store_id = :store AND day_id BETWEEN :first AND :first + 30
GROUP BY day_id
ORDER BY day_id;
