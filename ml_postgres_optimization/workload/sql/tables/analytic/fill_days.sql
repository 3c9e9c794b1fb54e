-- Five years.
INSERT INTO genesis_analytic.days (day_id, day, year, quarter, month, weekday, is_holiday)
SELECT
    number,
    day,
    extract(year FROM day)::integer,
    extract(quarter FROM day)::integer,
    extract(month FROM day)::integer,
    extract(isodow FROM day)::integer,
    (extract(month FROM day), extract(day FROM day)) IN ((1, 1), (5, 1), (12, 25), (12, 26))
FROM generate_series(1, 1826) AS number
CROSS JOIN LATERAL (VALUES (date '2020-01-01' + number - 1)) AS calendar (day)
