-- A role of its own, so that limits and time-outs hold for it. It has no password: nobody gets in until you set one.
CREATE ROLE {role} LOGIN CONNECTION LIMIT {limit};
COMMENT ON ROLE {role} IS {purpose};
ALTER ROLE {role} SET lock_timeout = '500ms';
ALTER ROLE {role} SET idle_in_transaction_session_timeout = '60s';
