-- Each month against the same month of the year before.
\set region random(1, 5)
WITH monthly AS (
    SELECT days.year, days.month, sum(sales.quantity * sales.unit_price) AS revenue
    FROM sales
    JOIN days USING (day_id)
    JOIN stores USING (store_id)
    WHERE stores.region = (ARRAY['north', 'south', 'east', 'west', 'centre'])[:region]
    GROUP BY days.year, days.month
)
SELECT now.year, now.month, now.revenue, now.revenue / nullif(before.revenue, 0) AS ratio
FROM monthly AS now
LEFT JOIN monthly AS before ON before.month = now.month AND before.year = now.year - 1
ORDER BY now.year, now.month;
