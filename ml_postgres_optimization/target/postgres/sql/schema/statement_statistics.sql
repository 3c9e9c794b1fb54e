-- Latency by statement, on a server of our own.
CREATE EXTENSION IF NOT EXISTS pg_stat_statements SCHEMA public /* genesis-pg */
