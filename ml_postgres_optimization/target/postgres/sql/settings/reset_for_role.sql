ALTER ROLE {role} IN DATABASE {database} RESET {name}
