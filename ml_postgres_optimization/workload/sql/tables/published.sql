-- Whoever subscribes to one of these stops at the first row of a table that he does not have.
SELECT string_agg(pubname, ', ' ORDER BY pubname) FROM pg_publication WHERE puballtables
