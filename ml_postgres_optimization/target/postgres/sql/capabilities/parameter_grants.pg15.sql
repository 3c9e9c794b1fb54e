-- The parameters that this role, or a role that it inherits from, was granted to change.
-- A parameter that nobody was granted has no row in pg_parameter_acl.
SELECT /* genesis-pg */ parname FROM pg_parameter_acl WHERE has_parameter_privilege(parname, 'ALTER SYSTEM')
