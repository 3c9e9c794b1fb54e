-- The extension's functions are of no use without its schema.
GRANT USAGE ON SCHEMA {schema} TO {role};
