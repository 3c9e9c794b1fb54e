-- Before PostgreSQL 15 no parameter can be granted.
SELECT /* genesis-pg */ NULL::text WHERE false
