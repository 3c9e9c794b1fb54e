-- What is on the same receipts as a product: the facts joined with themselves.
\set product random_zipfian(1, 5000, 1.2)
\set first random(1, 1750)
SELECT other.product_id, count(*) AS together
FROM sales AS chosen
JOIN sales AS other
    ON other.receipt_id = chosen.receipt_id
    AND other.product_id <> chosen.product_id
    AND other.day_id BETWEEN :first AND :first + 60
WHERE chosen.day_id BETWEEN :first AND :first + 60
    AND chosen.product_id BETWEEN :product AND :product + 20
GROUP BY other.product_id
ORDER BY together DESC
LIMIT 10;
