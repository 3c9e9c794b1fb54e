-- One customer's receipts, the newest first.
\set customer random_zipfian(1, 20000, 1.1)
SELECT sales.receipt_id, days.day, sum(sales.quantity * sales.unit_price) AS total
FROM sales
JOIN days USING (day_id)
WHERE sales.customer_id = :customer
GROUP BY sales.receipt_id, days.day
ORDER BY days.day DESC, sales.receipt_id DESC
LIMIT 50;
