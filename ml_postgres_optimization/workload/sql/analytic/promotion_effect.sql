-- With and without promotion, by channel: an outer join.
\set year random(2020, 2024)
SELECT
    coalesce(promotions.channel, 'none') AS channel,
    count(*) AS lines,
    avg(sales.quantity) AS pieces,
    sum(sales.quantity * sales.unit_price - sales.discount - sales.quantity * sales.cost) AS margin
FROM sales
LEFT JOIN promotions USING (promotion_id)
JOIN days USING (day_id)
WHERE days.year = :year
GROUP BY promotions.channel
ORDER BY margin DESC;
