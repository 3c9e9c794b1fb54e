-- In each database of the server first, since a role with rights there cannot be dropped.
DROP OWNED BY {tune}, {advise}, {observe};
DROP ROLE {tune}, {advise}, {observe};
