-- A window over the days of a region.
\set region random(1, 5)
SELECT
    day,
    revenue,
    avg(revenue) OVER (ORDER BY day ROWS BETWEEN 27 PRECEDING AND CURRENT ROW) AS four_weeks
FROM (
    SELECT days.day, sum(sales.quantity * sales.unit_price) AS revenue
    FROM sales
    JOIN days USING (day_id)
    JOIN stores USING (store_id)
    WHERE stores.region = (ARRAY['north', 'south', 'east', 'west', 'centre'])[:region]
    GROUP BY days.day
) AS by_day
ORDER BY day;
