-- Customers of a birth decade who came on holidays: a semi-join.
\set decade random(4, 9)
SELECT customers.segment, count(*) AS customers
FROM customers
WHERE customers.birth_year / 10 = 190 + :decade
    AND EXISTS (
        SELECT
        FROM sales
        JOIN days USING (day_id)
        WHERE sales.customer_id = customers.customer_id AND days.is_holiday
    )
GROUP BY customers.segment
ORDER BY customers.segment;
