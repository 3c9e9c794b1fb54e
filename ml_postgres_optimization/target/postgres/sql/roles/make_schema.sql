-- What is recorded belongs to the role that tunes; its tables are made by genesis-pg setup.
CREATE SCHEMA genesis AUTHORIZATION {tune};
COMMENT ON SCHEMA genesis IS 'genesis-pg: metrics, trials and predictions; made by its setup, dropped by its uninstall';
