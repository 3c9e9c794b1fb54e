-- Before PostgreSQL 15 nobody but a superuser can change a parameter of the server.
SELECT /* genesis-pg */ NULL::text WHERE false
