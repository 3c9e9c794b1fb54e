-- The parameters that were granted to the very role, not to one that it inherits from.
SELECT /* genesis-pg */ parname
FROM pg_parameter_acl, aclexplode(paracl)
WHERE grantee = (SELECT oid FROM pg_roles WHERE rolname = %(role)s) AND privilege_type = 'ALTER SYSTEM'
ORDER BY parname
