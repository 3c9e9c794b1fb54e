SELECT queryid, statement FROM genesis.statement_texts ORDER BY queryid
