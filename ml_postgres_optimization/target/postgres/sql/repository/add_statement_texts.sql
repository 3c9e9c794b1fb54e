INSERT INTO genesis.statement_texts (queryid, statement)
SELECT known.queryid, known.statement
FROM unnest(%(queryids)s::bigint[], %(statements)s::text[]) AS known (queryid, statement)
ON CONFLICT (queryid) DO NOTHING
