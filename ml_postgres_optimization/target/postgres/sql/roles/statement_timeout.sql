ALTER ROLE {role} SET statement_timeout = '30s';
