-- The connection by which the guard changes settings; it stays open, so that it is there when it is needed.
SELECT /* genesis-pg */ {connect}('genesis_pg', %(connection)s)
