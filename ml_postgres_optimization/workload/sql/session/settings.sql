-- Every name is qualified: this runs before search_path is safe (CVE-2018-1058). NULL puts back what stood before.
SELECT pg_catalog.set_config(setting.name, setting.value, false)
FROM ROWS FROM (
    pg_catalog.unnest($1::pg_catalog.text[]),
    pg_catalog.unnest($2::pg_catalog.text[])
) AS setting (name, value)
