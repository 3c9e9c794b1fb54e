-- So that what belongs to the role can be made by you, who are no superuser.
GRANT {tune} TO CURRENT_USER;
